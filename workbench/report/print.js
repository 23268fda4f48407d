"use strict";
// A table that scrolls sideways on a screen would be cut off on paper: there it is drawn as small as it must be.
(() => {
  const paper_width_px = 680;

  function shrinkage(table) {
    const frame = table.parentElement;
    frame.style.width = `${paper_width_px}px`;
    const wanted_px = table.offsetWidth;
    frame.style.width = "";
    return Math.min(1, paper_width_px / Math.max(wanted_px, 1));
  }

  const tables = document.querySelectorAll("main table");
  addEventListener("beforeprint", () => {
    const shares = [...tables].map(shrinkage);
    tables.forEach((table, at) => { table.style.zoom = shares[at]; });
  });
  addEventListener("afterprint", () => {
    for (const table of tables) table.style.zoom = "";
  });
})();
