// What tests ask of the page in a browser: contrast of all text, names of all controls. Returns what is wrong.
() => {
  const parse = (text) => { const [r, g, b, a = 1] = text.match(/[\d.]+/g).map(Number); return { r, g, b, a }; };
  const over = (top, below) => ({ r: top.r * top.a + below.r * (1 - top.a), g: top.g * top.a + below.g * (1 - top.a), b: top.b * top.a + below.b * (1 - top.a), a: 1 });
  const luminance = ({ r, g, b }) => [r, g, b].map((value) => value / 255).map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4))
    .reduce((sum, value, place) => sum + value * [0.2126, 0.7152, 0.0722][place], 0);
  const contrast = (one, other) => { const [x, y] = [luminance(one), luminance(other)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05); };
  const behind = (node) => {
    const layers = [];
    for (let at = node; at; at = at.parentElement) layers.push(parse(getComputedStyle(at).backgroundColor));
    return layers.reverse().reduce((below, layer) => over(layer, below), parse("rgb(255, 255, 255)"));
  };
  const visible = (node) => node.checkVisibility({ visibilityProperty: true }) && node.getClientRects().length;
  const wrong = [];
  for (const node of document.body.querySelectorAll("*:not(script):not(style)")) {
    const own = [...node.childNodes].some((child) => child.nodeType === Node.TEXT_NODE && child.textContent.trim());
    if (!own || !visible(node)) continue;
    const paper = behind(node);
    const ratio = contrast(over(parse(getComputedStyle(node).color), paper), paper);
    if (ratio < 4.5) wrong.push(`contrast ${ratio.toFixed(2)}: ${node.tagName} ${node.className} ${node.textContent.trim().slice(0, 30)}`);
  }
  const page = behind(document.body);
  for (const colour of COLOURS) {
    const ratio = contrast(parse(`rgb(${[1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16)).join(",")})`), page);
    if (ratio < 3) wrong.push(`contrast ${ratio.toFixed(2)} of the chart colour ${colour}`);
  }
  for (const node of document.querySelectorAll("input, select, button, a, summary, canvas, table[role], dialog, section, [role=region]")) {
    const labelled = (node.getAttribute("aria-labelledby") || "").split(" ").map((id) => document.getElementById(id)).filter(Boolean);
    const name = node.getAttribute("aria-label") || labelled.map((one) => one.textContent).join(" ") || [...(node.labels || [])].map((one) => one.textContent).join(" ") || node.textContent;
    if (!name.trim()) wrong.push(`no name: ${node.outerHTML.slice(0, 80)}`);
  }
  for (const image of document.images) if (!image.hasAttribute("alt")) wrong.push(`no text: ${image.src.slice(0, 40)}`);
  for (const th of document.querySelectorAll("th")) if (!th.scope) wrong.push(`no scope: ${th.textContent}`);
  const ids = [...document.querySelectorAll("[id]")].map((node) => node.id);
  wrong.push(...ids.filter((id, place) => ids.indexOf(id) !== place).map((id) => `twice: #${id}`));
  return wrong;
}
