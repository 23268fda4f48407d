// What a page needs for live figures: plotly once for all of them, patience while it is busy, and figures as wide as their place.

// anywidget gives a widget two seconds to load; if the page was busier, it rejects a promise that every later message of the
// kernel waits for, and the widget stands still for good.
const HASTE_MS = 2000;
const PATIENCE_MS = 600_000;

export default {
  initialize({model}) {
    if (!AbortSignal.timeout.isPatient) {
      const timeout = AbortSignal.timeout.bind(AbortSignal);
      AbortSignal.timeout = Object.assign((ms) => timeout(ms === HASTE_MS ? PATIENCE_MS : ms), {isPatient: true});
    }
    const address = URL.createObjectURL(new Blob([model.get("script")], {type: "text/javascript"}));
    const versions = (globalThis.workbenchPlotly ??= {});
    versions[model.get("version")] ??= import(/* webpackIgnore: true */ address);
  },
};
