// What scrolls by itself can be reached by keyboard.
document$.subscribe(() => {
  for (const one of document.querySelectorAll("pre > code, .md-typeset__scrollwrap")) {
    if (one.scrollWidth > one.clientWidth) one.tabIndex = 0
  }
})
