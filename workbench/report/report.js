"use strict";
(() => {
  const nonce = document.currentScript.nonce;
  const packed = document.currentScript.previousElementSibling;
  const phone_px = 600;
  const letter_px = 6.5; // of an axis title, on average
  const print_width_px = 680;
  const by_touch = matchMedia("(pointer: coarse)").matches;
  const night = matchMedia("(prefers-color-scheme: dark)");
  const light_to_night = {
    "#0072b2": "#4aa8e0", "#d55e00": "#f08a4b", "#009e73": "#3cc79b",
    "#cc79a7": "#e29cc3", "#e69f00": "#f0b73f", "#56b4e9": "#8fd0f5",
  };
  const plots = [];

  function merge(below, above) {
    const result = { ...below };
    for (const [key, value] of Object.entries(above)) {
      const both = value && typeof value === "object" && !Array.isArray(value);
      result[key] = both ? merge(result[key] || {}, value) : value;
    }
    return result;
  }

  function themed(template, is_night) {
    const base = template || {};
    const old = base.layout || {};
    const none = "rgba(0,0,0,0)";
    const clear = { paper_bgcolor: none, plot_bgcolor: none, modebar: { bgcolor: none, color: "#8b949e" } };
    if (!is_night) return { ...base, layout: merge(old, clear) };
    const axis = { gridcolor: "#363c45", linecolor: "#6b7480", zerolinecolor: "#525a65", tickcolor: "#6b7480" };
    const colours = (old.colorway || []).map((colour) => light_to_night[colour.toLowerCase()] || colour);
    return {
      ...base,
      layout: merge(old, {
        ...clear,
        ...(colours.length ? { colorway: colours } : {}),
        font: { color: "#d7dde4" },
        xaxis: axis,
        yaxis: axis,
        hoverlabel: { bgcolor: "#262b33", bordercolor: "#6b7480", font: { color: "#eef1f4" } },
        annotationdefaults: { font: { color: "#d7dde4" } },
        modebar: { ...clear.modebar, activecolor: "#d7dde4" },
      }),
    };
  }

  function heightFor(plot) {
    const legend = plot.area.querySelector(".legend .bg");
    if (!legend || plot.area.clientWidth >= phone_px) return plot.height;
    return plot.height + Math.max(0, legend.getBoundingClientRect().height - 40);
  }

  // Titles of x axes that are longer than their axis, in lines.
  function brokenTitles(plot) {
    const changed = {};
    for (const [name, axis] of Object.entries(plot.layout)) {
      const text = axis && axis.title && axis.title.text;
      const length_px = /^xaxis\d*$/.test(name) && plot.area._fullLayout[name]?._length;
      if (!text || !length_px || text.includes("<")) continue;
      const lines = [""];
      for (const part of text.match(/[^ /]*[ /]?/g)) {
        const longer = lines.at(-1) + part;
        if (lines.at(-1) && longer.trim().length * letter_px > length_px) lines.push(part);
        else lines[lines.length - 1] = longer;
      }
      changed[`${name}.title.text`] = lines.map((line) => line.trim()).join("<br>");
    }
    return changed;
  }

  async function fit(plot) {
    await Plotly.relayout(plot.area, { height: plot.height, ...brokenTitles(plot) });
    await Plotly.relayout(plot.area, { height: heightFor(plot) });
  }

  // Whether it was drawn: a figure may say how wide it must be to be read, and plotly throws where labels leave no room.
  async function drawNarrow(plot, layout, config) {
    if (plot.least_px > plot.area.clientWidth) return false;
    try {
      await Plotly.newPlot(plot.area, plot.data, layout, config);
      await fit(plot);
      return true;
    } catch {
      Plotly.purge(plot.area);
      return false;
    }
  }

  async function draw(plot) {
    const layout = { ...plot.layout, template: themed(plot.layout.template, night.matches), autosize: true };
    delete layout.width;
    layout.height = plot.height;
    if (by_touch) layout.dragmode = false; // a finger on a plot scrolls the page
    const config = {
      responsive: true,
      displaylogo: false,
      displayModeBar: by_touch ? false : "hover",
      showSendToCloud: false,
      modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
    };
    if (plot.area.clientWidth >= Math.max(phone_px, plot.least_px)) {
      await Plotly.newPlot(plot.area, plot.data, layout, config);
    } else if (!(await drawNarrow(plot, layout, config))) {
      // It keeps the width it needs and scrolls in its frame.
      plot.set_width = layout.width = Math.max(phone_px, plot.least_px);
      plot.area.style.overflowX = "auto";
      plot.area.tabIndex = 0;
      await Plotly.newPlot(plot.area, plot.data, { ...layout, autosize: false }, { ...config, responsive: false });
      await Plotly.relayout(plot.area, brokenTitles(plot));
    }
    plot.width = plot.area.clientWidth;
    // One picture with a name for a screen reader, instead of every number on the axes; the buttons beside it stay buttons.
    const caption = plot.area.closest("figure").getAttribute("aria-labelledby");
    for (const [place, drawing] of [...plot.area.querySelectorAll(".main-svg")].entries()) {
      if (place) drawing.setAttribute("aria-hidden", "true");
      else drawing.setAttribute("role", "img"), drawing.setAttribute("aria-labelledby", caption);
    }
    plot.area.dataset.drawn = "yes";
  }

  async function drawAll() {
    for (const figure of document.querySelectorAll("figure.plot")) {
      const area = figure.querySelector(".plot-area");
      try {
        const { data, layout } = JSON.parse(figure.querySelector("script").textContent);
        const plot = { area, data, layout, height: layout.height || 450, least_px: layout.meta?.min_width || 0 };
        await draw(plot);
        plots.push(plot);
      } catch (error) {
        area.textContent = `This figure could not be drawn: ${error.message}`;
        console.error(error);
      }
      await new Promise((resume) => setTimeout(resume));
    }
    document.documentElement.dataset.plots = "drawn";
  }

  async function unpack() {
    const bytes = Uint8Array.from(atob(packed.textContent), (character) => character.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.nonce = nonce;
    script.textContent = await new Response(stream).text();
    document.head.append(script);
    packed.remove();
  }

  night.addEventListener("change", () => {
    for (const plot of plots) Plotly.relayout(plot.area, { template: themed(plot.layout.template, night.matches) });
  });
  let resizing;
  addEventListener("resize", () => {
    clearTimeout(resizing);
    resizing = setTimeout(() => {
      for (const plot of plots) {
        if (plot.set_width || plot.area.clientWidth === plot.width) continue;
        plot.width = plot.area.clientWidth;
        fit(plot);
      }
    }, 250);
  });
  // Paper is narrower than the window and always light; the plots must know before the page is laid out for it.
  addEventListener("beforeprint", () => {
    for (const plot of plots) {
      const template = themed(plot.layout.template, false);
      Plotly.relayout(plot.area, { width: print_width_px, height: plot.height, template });
    }
  });
  addEventListener("afterprint", () => {
    for (const plot of plots) {
      Plotly.relayout(plot.area, {
        width: plot.set_width || null, autosize: !plot.set_width, height: heightFor(plot), template: themed(plot.layout.template, night.matches),
      });
    }
  });
  unpack().then(drawAll).catch((error) => {
    for (const area of document.querySelectorAll(".plot-area")) {
      area.textContent = `The figures could not be drawn: ${error.message}. A browser from 2023 or later is needed.`;
    }
    console.error(error);
  });
})();
