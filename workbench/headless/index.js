"use strict";
// Sorts and filters the rows that stand in the page; the view is kept in the address after #, so that it can be shared.
(() => {
  const table = document.getElementById("runs");
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const form = document.getElementById("filters");
  const search = form.elements.namedItem("search");
  const selects = [...form.querySelectorAll("select")];
  const heads = [...table.tHead.querySelectorAll("th[data-key]")];
  const trends = [...document.querySelectorAll(".trend")];
  const folded = document.getElementById("trends");
  const count = document.getElementById("count");
  const collator = new Intl.Collator("en", { numeric: true });
  const newest = { sort: "started", order: "descending" };
  let texts = null;
  let sorted = "started descending";
  let written = location.hash;
  let is_typing = false;

  function readAddress() {
    const given = new URLSearchParams(location.hash.slice(1));
    const view = { ...newest, search: given.get("search") || "" };
    for (const select of selects) view[select.name] = given.get(select.name) || "";
    if (heads.some((head) => head.dataset.key === given.get("sort"))) {
      view.sort = given.get("sort");
      view.order = given.get("order") === "ascending" ? "ascending" : "descending";
    }
    return view;
  }

  function writeAddress(view, replace) {
    const named = new URLSearchParams();
    for (const [name, value] of Object.entries(view)) if (value) named.set(name, value);
    const address = `#${named}`;
    if (replace) location.replace(address);
    else location.hash = address;
    written = location.hash;
  }

  function matches(view) {
    const words = view.search.toLowerCase().split(/\s+/).filter(Boolean);
    if (words.length && !texts) texts = rows.map((row) => row.textContent.toLowerCase());
    return rows.map(
      (row, index) =>
        selects.every(({ name }) => !view[name] || row.dataset[name] === view[name]) &&
        words.every((word) => texts[index].includes(word)),
    );
  }

  function sortRows(view) {
    if (sorted === `${view.sort} ${view.order}`) return;
    sorted = `${view.sort} ${view.order}`;
    const head = heads.find((one) => one.dataset.key === view.sort);
    const sign = view.order === "ascending" ? 1 : -1;
    const compare = "number" in head.dataset ? (a, b) => a - b : collator.compare;
    const keys = new Map(rows.map((row) => [row, row.dataset[view.sort]]));
    const within = head.dataset.within; // numbers of different metrics have no order
    const ordered = [...rows].sort((a, b) => {
      const [first, second] = [keys.get(a), keys.get(b)];
      // What is missing comes last, whichever way the rest goes.
      if (!first || !second) return (first ? 0 : 1) - (second ? 0 : 1);
      const apart = within ? collator.compare(a.dataset[within], b.dataset[within]) : 0;
      return apart || sign * compare(first, second);
    });
    body.append(...ordered);
    for (const one of heads) one.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", view.order);
  }

  function showTrends(shown) {
    for (const trend of trends) {
      let num_shown = 0;
      for (const point of trend.querySelectorAll("a")) {
        const is_in = shown[point.dataset.run];
        point.classList.toggle("out", !is_in);
        num_shown += is_in;
      }
      trend.hidden = !num_shown;
    }
    if (folded) folded.hidden = trends.every((trend) => trend.hidden);
  }

  function show(view) {
    const shown = matches(view);
    rows.forEach((row, index) => { row.hidden = !shown[index]; });
    sortRows(view);
    showTrends(shown);
    const num_shown = shown.filter(Boolean).length;
    const plural = rows.length === 1 ? "run" : "runs";
    count.textContent = num_shown === rows.length ? `${rows.length} ${plural}` : `${num_shown} of ${rows.length} ${plural}`;
  }

  function setControls(view) {
    search.value = view.search;
    for (const select of selects) {
      const value = view[select.name];
      // A shared view may name what is no longer there; it then shows no run, and says why.
      if (![...select.options].some((option) => option.value === value)) select.add(new Option(`${value} (0)`, value));
      select.value = value;
    }
  }

  function change(changes, replace = false) {
    const view = { ...readAddress(), ...changes };
    writeAddress(view, replace);
    show(view);
  }

  function addSorting(head) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    button.addEventListener("click", () => {
      const other = { ascending: "descending", descending: "ascending" };
      const first = "number" in head.dataset || "descending" in head.dataset ? "descending" : "ascending";
      is_typing = false;
      change({ sort: head.dataset.key, order: other[head.getAttribute("aria-sort")] || first });
    });
    head.replaceChildren(button);
  }

  // One stop of the Tab key for each drawing; arrows go from point to point.
  function addArrows(trend) {
    const points = [...trend.querySelectorAll("a")];
    points.forEach((point, index) => {
      point.setAttribute("tabindex", index === points.length - 1 ? "0" : "-1");
      point.addEventListener("keydown", (event) => {
        const to = { ArrowLeft: index - 1, ArrowRight: index + 1, Home: 0, End: points.length - 1 }[event.key];
        if (to === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
        event.preventDefault();
        if (!points[to]) return;
        point.setAttribute("tabindex", "-1");
        points[to].setAttribute("tabindex", "0");
        points[to].focus();
      });
    });
  }

  document.documentElement.classList.add("scripted");
  heads.forEach(addSorting);
  trends.forEach(addArrows);
  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", (event) => {
    event.preventDefault();
    is_typing = false;
    change({ search: "", ...Object.fromEntries(selects.map(({ name }) => [name, ""])) });
    setControls(readAddress());
  });
  for (const select of selects) {
    select.addEventListener("change", () => {
      is_typing = false;
      change({ [select.name]: select.value });
    });
  }
  search.addEventListener("input", () => {
    // A word typed is one step back, not one for each letter.
    change({ search: search.value.trim() }, is_typing);
    is_typing = true;
  });
  search.addEventListener("change", () => { is_typing = false; });
  addEventListener("hashchange", () => {
    if (location.hash === written) return;
    written = location.hash;
    is_typing = false;
    setControls(readAddress());
    show(readAddress());
  });
  setControls(readAddress());
  show(readAddress());
  document.documentElement.dataset.rows = "shown";
})();
