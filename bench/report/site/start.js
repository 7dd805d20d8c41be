// Everything once, and again where the address changes.

function showView() {
  showBoardView();
  showChartView();
  if (RANKED.length && DATA.datasets.length) showPairView();
  if (view.open) showResult();
  else if ($("result").open) $("result").close();
  keepView();
}

provenance();
boardControls();
exportControls();
chartControls();
pairControls();
resultControls();
readView();
showView();
addEventListener("hashchange", () => {
  readView();
  showView();
});
DARK.addEventListener("change", () => location.reload());
for (const link of document.querySelectorAll("nav a")) {
  // so that the address keeps the view
  link.addEventListener("click", (event) => {
    event.preventDefault();
    document.querySelector(link.hash).scrollIntoView();
    document.querySelector(link.hash).focus({ preventScroll: true });
  });
}
document.documentElement.dataset.ready = "yes";
