// A grid of thumbnails as buttons, and a place to drop a picture on. Texts come from data: they are set as text, never as markup.

const MARKS = new Set(["right", "wrong", "query", "bad", "plain"]);
const STYLE = `
.wb-live {color: var(--jp-ui-font-color1, #1f2328); font-size: .85rem; line-height: 1.35; margin: .25rem 0 .5rem}
.wb-live h4 {margin: 0 0 .35rem; font-size: .95rem}
.wb-live .wb-note {margin: 0 0 .4rem; min-height: 1.3em; overflow-wrap: anywhere}
.wb-live .wb-cells {display: grid; gap: .5rem; grid-template-columns: repeat(auto-fill, minmax(104px, 1fr)); align-items: start}
.wb-live button.wb-cell {all: unset; cursor: pointer; box-sizing: border-box; border-radius: 6px; padding: 4px; min-width: 0;
  text-align: left; border: 1px solid var(--jp-border-color2, #d0d7de)}
.wb-live button.wb-cell:focus-visible {outline: 3px solid #0072b2; outline-offset: 1px}
.wb-live button.wb-cell[aria-pressed=true] {background: var(--jp-layout-color2, #eef2f6); border-color: #0072b2;
  box-shadow: inset 0 0 0 1px #0072b2}
.wb-live img, .wb-live .wb-missing {display: block; width: 100%; aspect-ratio: 1; object-fit: contain; border-radius: 4px;
  box-sizing: border-box; background: var(--jp-layout-color2, #f6f8fa); border: 3px solid transparent}
.wb-live .wb-missing {padding: .3rem; font-size: .7rem; overflow: hidden}
.wb-live .wb-right img {border: 3px solid #009e73}
.wb-live .wb-wrong img {border: 3px dashed #d55e00}
.wb-live .wb-query img {border: 3px solid #0072b2}
.wb-live .wb-bad img {border: 3px dotted #59636e; opacity: .5}
.wb-live .wb-text {display: block; font-size: .72rem; margin-top: .25rem; overflow-wrap: anywhere; white-space: pre-line}
.wb-live .wb-drop {display: block; border: 2px dashed var(--jp-border-color1, #8a8f98); border-radius: 8px; padding: .8rem;
  text-align: center; cursor: pointer}
.wb-live .wb-drop.wb-over {border-color: #0072b2; background: var(--jp-layout-color2, #eef2f6)}
.wb-live .wb-drop:focus-within {outline: 3px solid #0072b2}
.wb-live .wb-drop input {position: absolute; width: 1px; height: 1px; opacity: 0}
`;
// A kernel's connection takes messages of about 10 MB.
const MOST_BYTES = 8_000_000;

function make(tag, className, text = "") {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  return element;
}

function cell(item, number, model) {
  const button = make("button", `wb-cell wb-${MARKS.has(item.mark) ? item.mark : "plain"}`);
  button.type = "button";
  if (typeof item.src === "string" && item.src.startsWith("data:image/webp;base64,")) {
    const picture = document.createElement("img");
    picture.src = item.src;
    picture.alt = item.alt;
    button.append(picture);
  } else {
    button.append(make("span", "wb-missing", item.alt));
  }
  button.append(make("span", "wb-text", item.caption));
  button.setAttribute("aria-pressed", String(model.get("selected") === number));
  button.addEventListener("click", () => {
    model.set("selected", model.get("selected") === number ? -1 : number);
    model.save_changes();
  });
  return button;
}

function dropArea(model) {
  const area = make("label", "wb-drop", model.get("drop_text"));
  const input = document.createElement("input");
  input.type = "file";
  input.accept = model.get("accept");
  area.append(input);
  const send = async (file) => {
    if (!file) return;
    if (file.size > MOST_BYTES) {
      model.send({kind: "too large", name: file.name, num_bytes: file.size});
      return;
    }
    model.send({kind: "picture", name: file.name}, undefined, [await file.arrayBuffer()]);
  };
  input.addEventListener("change", () => { send(input.files[0]); input.value = ""; });
  const over = (event) => { event.preventDefault(); event.stopPropagation(); area.classList.add("wb-over"); };
  for (const name of ["dragenter", "dragover"]) area.addEventListener(name, over);
  area.addEventListener("dragleave", () => area.classList.remove("wb-over"));
  area.addEventListener("drop", (event) => {
    event.preventDefault();
    event.stopPropagation();
    area.classList.remove("wb-over");
    send(event.dataTransfer.files[0]);
  });
  return area;
}

export default {
  render({model, el}) {
    const style = document.createElement("style");
    style.textContent = STYLE;
    const root = make("div", "wb-live");
    const title = make("h4", "");
    const note = make("p", "wb-note");
    note.setAttribute("aria-live", "polite");
    const cells = make("div", "wb-cells");
    cells.setAttribute("role", "group");
    root.append(title, note, cells);
    if (model.get("drop_text")) root.insertBefore(dropArea(model), note);
    el.append(style, root);
    const write = () => {
      title.textContent = model.get("title");
      title.hidden = !model.get("title");
      note.textContent = model.get("note");
      note.hidden = !model.get("note");
      cells.setAttribute("aria-label", model.get("title") || "pictures");
    };
    const draw = () => cells.replaceChildren(...model.get("items").map((item, number) => cell(item, number, model)));
    const press = () => [...cells.children].forEach((button, number) =>
      button.setAttribute("aria-pressed", String(model.get("selected") === number)));
    model.on("change:items", draw);
    model.on("change:selected", press);
    for (const name of ["title", "note"]) model.on(`change:${name}`, write);
    write();
    draw();
  },
};
