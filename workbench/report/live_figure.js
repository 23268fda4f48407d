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

export default async () => {
  const figure = (await plotly()).default();
  return {
    initialize: figure.initialize,
    render(context) {
      const remove = figure.render(context);
      const leave = keepFitting(context.el);
      return () => { leave(); remove(); };
    },
  };
};
