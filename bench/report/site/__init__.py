"""One page with everything that a results folder holds, for a browser, without a server."""
