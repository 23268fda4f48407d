// A plotly figure that takes plotly from the page (see live_page.js), in the version that the kernel has.

const version = "VERSION";

async function plotly() {
  while (!globalThis.workbenchPlotly?.[version]) await new Promise((again) => setTimeout(again, 20));
  return globalThis.workbenchPlotly[version];
}

// A figure is drawn before it has its place in the page: 700 px wide, titles on top of each other. Plotly draws anew when told of a resize.
function keepFitting(element) {
  let width = 0;
  const observer = new ResizeObserver(() => {
    if (element.clientWidth === width || !element.clientWidth) return;
    width = element.clientWidth;
    window.dispatchEvent(new Event("resize"));
  });
  observer.observe(element);
  return () => observer.disconnect();
}

// Plotly's widget tells of clicks through one variable, hovering too: while the kernel is busy, the page keeps only its last value and
// the click is gone. Messages arrive one by one.
function tellPicks(element, model) {
  const drawn = ({detail}) => {
    if (detail.element !== element) return;
    for (const act of ["click", "hover", "unhover", "selected", "deselect"]) element.removeAllListeners(`plotly_${act}`);
    const tell = (event) => event && model.send({kind: "pick", picked: event.points.map((point) => point.customdata)});
    element.on("plotly_click", tell);
    element.on("plotly_selected", tell);
  };
  document.addEventListener("plotlywidget-after-render", drawn);
  return () => document.removeEventListener("plotlywidget-after-render", drawn);
}

// Plotly hovers at most every 50 ms. Who clicks sooner after a move loses the click: the late hover comes while the button is
// down, forgets the point, and the release finds nothing there.
function keepClicks(element) {
  let under;
  const press = () => { under = element._hoverdata; };
  const release = () => {
    if (!element._dragged) element._hoverdata ??= under;
    under = undefined;
  };
  element.addEventListener("mousedown", press, true);
  document.addEventListener("mouseup", release, true);
  return () => document.removeEventListener("mouseup", release, true);
}

export default async () => {
  const figure = (await plotly()).default();
  return {
    initialize: figure.initialize,
    render(context) {
      const element = context.el;
      const undo = [tellPicks(element, context.model), keepClicks(element), figure.render(context), keepFitting(element)];
      return () => undo.forEach((one) => one());
    },
  };
};
