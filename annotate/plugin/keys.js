// Keys of a Boxwright review, for the FiftyOne App. Written by hand, loaded as it is.
//
// A verdict key waits until the App has stored the open edits, executes the operator of that name, and goes on to the next
// image of the queue by the App's own arrow keys, since only those stay in Annotate mode.
(() => {
  "use strict";
  if (window.__boxwrightKeys) return;
  window.__boxwrightKeys = true;

  const PLUGIN = "@boxwright/review";
  const VERDICTS = { a: "accept", r: "reject", n: "needs_boxes", 0: "mark_negative", z: "undo" };
  const BAR = [["A", "accept"], ["R", "reject"], ["N", "needs boxes"], ["0", "negative"], ["Z", "undo"], ["B", "draw"], ["1–9", "class"], ["?", "help"]];
  const SAVE_PATIENCE_MS = 8000;
  const LOAD_PATIENCE_MS = 4000;
  const state = { busy: false, sample: "", since: performance.now(), guide: null, left: null };

  const one = (mark) => document.querySelector(`[data-cy="${mark}"]`);
  const opened = () => new URL(location.href).searchParams.get("id") || "";
  const pause = (ms) => new Promise((done) => setTimeout(done, ms));
  const until = async (holds, patience_ms) => {
    const end = performance.now() + patience_ms;
    for (let value; performance.now() < end; await pause(15)) if ((value = holds())) return value;
    return null;
  };

  // Talking to the server

  function execute(name, params = {}) {
    return new Promise((resolve, reject) => {
      const callback = (answer) => {
        const error = answer.errorMessage || answer.error;
        if (error) reject(new Error(String(error.message || error).replace(/^.*ValueError: /s, "").split("\n")[0]));
        else resolve(answer.result || {});
      };
      window.__foo__.executeOperator(`${PLUGIN}/${name}`, { ...params, keyed: true }, { callback });
    });
  }

  // True once everything drawn is stored. Outside Annotate mode nothing can be open.
  async function stored() {
    const mark = () => one("annotation-save-state");
    if (!mark()) return true;
    await new Promise(requestAnimationFrame);
    if (mark()?.dataset.settled === "true") return true;
    if (window.__boxwrightSave) window.__boxwrightSave();
    return until(() => !mark() || mark().dataset.settled === "true", SAVE_PATIENCE_MS);
  }

  async function verdict(name) {
    if (state.busy) return;
    state.busy = true;
    try {
      if (!(await stored())) throw new Error("the last edit is not stored yet; press the key again");
      const seconds = (performance.now() - state.since) / 1000;
      const result = await execute(name, opened() ? { seconds } : {});
      if (opened()) await go(result);
      else await refreshGrid(result);
    } catch (error) {
      say(error.message, true);
    } finally {
      state.busy = false;
    }
  }

  // Going on

  async function go(result) {
    for (const note of result.notes || []) say(note, true);
    if (result.verdict) flash(result.verdict);
    if (!result.next) {
      say("Every image of this queue has its verdict. Thank you!");
      state.left = 0;
    } else if (opened()) {
      await walk(result.steps, result.next);
      state.left = result.left;
    }
    bar(result.reason);
  }

  // The arrow keys walk through the grid's order, which is the queue's, and stay in Annotate mode. An image that was opened by
  // its address has no neighbours in the App; the next one is then opened by its id, and Annotate mode entered again.
  async function walk(steps, target) {
    const key = steps < 0 ? "ArrowLeft" : "ArrowRight";
    const annotating = inAnnotate();
    for (let step = 0; step < Math.abs(steps) && opened() !== target; step++) {
      if (!one("nav-right-button") && !one("nav-left-button")) break;
      const from = opened();
      document.dispatchEvent(new KeyboardEvent("keydown", { key, code: key, bubbles: true, cancelable: true }));
      if (!(await until(() => opened() !== from, LOAD_PATIENCE_MS))) break;
    }
    if (opened() === target) return;
    window.__foo__.executeOperator("open_sample", { id: target });
    await until(() => opened() === target, LOAD_PATIENCE_MS);
    if (annotating) await annotate();
  }

  async function refreshGrid(result) {
    window.__foo__.executeOperator("clear_selected_samples");
    window.__foo__.executeOperator("reload_samples");
    say(`${result.verdict || "done"}: ${result.images} image(s)`);
    for (const note of result.notes || []) say(note, true);
  }

  // Annotate mode

  const inAnnotate = () => Boolean(one("annotation-save-state") || one("detection-mode") || one("annotate-edit-back"));

  async function annotate() {
    if (!opened()) return false;
    if (!inAnnotate()) (await until(() => one("annotate"), LOAD_PATIENCE_MS))?.click();
    return Boolean(await until(inAnnotate, LOAD_PATIENCE_MS));
  }

  async function draw() {
    if (!(await annotate())) return say("open an image to draw on it", true);
    if (!one("detection-mode") && one("annotate-edit-back")) one("annotate-edit-back").click();
    const button = await until(() => one("detection-mode"), LOAD_PATIENCE_MS);
    // The button is a toggle, and the mode outlives the image: B must never switch it off.
    if (button && !document.body.textContent.includes("Click and drag to create a bounding box")) button.click();
  }

  // The digit's class for the selected box, through the class list of the App's own form.
  async function relabel(place) {
    const guide = state.guide || (state.guide = await execute("guide"));
    const entry = (guide.classes || [])[place - 1];
    if (!entry) return say(`there is no class ${place}; ? lists them`, true);
    const field = one("root_label_container");
    if (!field) return say("select a box first, then press the digit of its class");
    const input = field.querySelector('input[role="combobox"]');
    if (!input) return say("this form has no class list", true);
    // A combobox offers what is typed; React hears of it only through the prototype's own setter.
    input.focus();
    Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, "value").set.call(input, entry.name);
    input.dispatchEvent(new Event("input", { bubbles: true }));
    const offered = () => [...document.querySelectorAll('[role="option"]')].find((item) => item.textContent.trim() === entry.name);
    const option = await until(offered, 1500);
    if (!option) return say(`the App did not offer the class ${entry.name}`, true);
    const types = { pointerdown: PointerEvent, mousedown: MouseEvent, pointerup: PointerEvent, mouseup: MouseEvent, click: MouseEvent };
    for (const [type, Kind] of Object.entries(types)) option.dispatchEvent(new Kind(type, { bubbles: true, cancelable: true, button: 0 }));
    input.blur();
  }

  // What the person sees

  const style = document.createElement("style");
  style.textContent = `
    #bw-bar, #bw-help, .bw-say { font: 13px/1.45 system-ui, sans-serif; color: #eee; z-index: 2147483000; position: fixed; }
    #bw-bar { left: 50%; bottom: 8px; transform: translateX(-50%); background: #1b1b1be6; border: 1px solid #444; border-radius: 6px;
      padding: 4px 12px; pointer-events: none; white-space: nowrap; }
    #bw-bar b { color: #ff6d04; font-weight: 600; } #bw-bar .bw-why { color: #9cd; margin-left: 12px; }
    #bw-help { inset: 0; background: #000b; display: flex; align-items: center; justify-content: center; }
    #bw-help > div { background: #222; border: 1px solid #555; border-radius: 8px; padding: 18px 26px; max-width: 720px; max-height: 80vh; overflow: auto; }
    #bw-help h2 { font-size: 15px; margin: 0 0 10px; } #bw-help h2:not(:first-child) { margin-top: 14px; } #bw-help td { padding: 3px 14px 3px 0; vertical-align: top; }
    kbd { background: #333; border: 1px solid #666; border-radius: 4px; padding: 0 6px; font: 12px ui-monospace, monospace; }
    .bw-say { left: 50%; bottom: 44px; transform: translateX(-50%); background: #24435c; border-radius: 6px; padding: 8px 16px; max-width: 70vw; }
    .bw-say.bw-bad { background: #7a2b1d; }`;
  document.head.append(style);

  function say(text, bad = false) {
    document.querySelectorAll(".bw-say").forEach((old) => old.remove());
    const note = Object.assign(document.createElement("div"), { className: `bw-say${bad ? " bw-bad" : ""}`, textContent: text });
    document.body.append(note);
    setTimeout(() => note.remove(), bad ? 6000 : 2500);
  }

  function flash(word) {
    say(word.replace("_", " "));
  }

  function bar(reason) {
    let line = document.getElementById("bw-bar");
    if (!opened()) return line?.remove();
    if (!line) {
      line = Object.assign(document.createElement("div"), { id: "bw-bar" });
      document.body.append(line);
    }
    line.replaceChildren();
    const keys = document.createElement("span");
    keys.innerHTML = BAR.map(([key, word]) => `<b>${key}</b> ${word}`).join(" &nbsp; ");
    line.append(keys);
    const why = Object.assign(document.createElement("span"), { className: "bw-why" });
    why.textContent = [state.left == null ? "" : `${state.left} left`, reason || ""].filter(Boolean).join(" · ");
    line.append(why);
  }

  async function help() {
    const shown = document.getElementById("bw-help");
    if (shown) return shown.remove();
    const cover = Object.assign(document.createElement("div"), { id: "bw-help" });
    cover.addEventListener("click", () => cover.remove());
    document.body.append(cover);
    const guide = state.guide?.classes ? state.guide : (state.guide = await execute("guide"));
    const rows = [
      ["A", "accept: the boxes are right"], ["R", "reject: the image does not belong here"], ["N", "needs boxes: send it back"],
      ["0", "negative: nothing of any class is on it"], ["Z", "undo the last verdict"], ["B", "draw boxes (enters Annotate mode)"],
      ["Enter", "in the grid: open the first image and annotate"], ["Backspace", "delete the selected box"], ["← →", "previous, next image"], ["?", "this list"],
    ];
    const table = (lines) => {
      const made = document.createElement("table");
      for (const [key, text] of lines) {
        const row = made.insertRow();
        row.insertCell().append(Object.assign(document.createElement("kbd"), { textContent: key }));
        row.insertCell().textContent = text;
      }
      return made;
    };
    const card = document.createElement("div");
    const title = (text) => Object.assign(document.createElement("h2"), { textContent: text });
    const classes = (guide.classes || []).map((entry, place) => [place < 9 ? place + 1 : "–", [entry.name, entry.definition].filter(Boolean).join(": ")]);
    card.append(title("Keys"), table(rows), title("Classes of the selected box"), table(classes));
    cover.append(card);
  }

  // From the grid: open the first image that waits, as a click on it does.
  async function start() {
    const tile = document.querySelector('[data-cy="looker"]');
    if (!tile) return;
    for (const kind of ["mousedown", "mouseup", "click"]) tile.dispatchEvent(new MouseEvent(kind, { bubbles: true, button: 0 }));
    await until(opened, LOAD_PATIENCE_MS);
    await annotate();
  }

  // Listening

  const typing = (target) => target.isContentEditable || /^(TEXTAREA|SELECT)$/.test(target.tagName) ||
    (target.tagName === "INPUT" && !/^(checkbox|radio|button|range)$/.test(target.type)) || Boolean(target.closest?.(".monaco-editor"));

  window.addEventListener("keydown", (event) => {
    if (!event.isTrusted || event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    let act = null;
    if (key in VERDICTS) act = () => verdict(VERDICTS[key]);
    else if (key === "b") act = draw;
    else if (key === "?") act = help;
    else if (key === "Enter" && !opened() && !event.target.closest?.("button, a, [role=button], [role=option]")) act = start;
    else if (key === "Escape" && document.getElementById("bw-help")) act = help;
    else if (/^[1-9]$/.test(key) && opened()) act = () => relabel(Number(key));
    if (!act) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    if (event.repeat) return;
    Promise.resolve(act()).catch((error) => say(error.message, true));
  }, true);

  // The clock of an image starts when it is shown.
  setInterval(async () => {
    const sample = opened();
    if (sample === state.sample) return;
    state.sample = sample;
    state.since = performance.now();
    if (!sample || state.busy || !window.__foo__) return bar("");
    try {
      const guide = (state.guide = await execute("guide"));
      state.left = guide.left;
      if (opened() === sample) bar(guide.about?.reason || "");
    } catch {
      bar("");
    }
  }, 100);

  // Buttons run the same operators; the page goes on through this one.
  function register() {
    const { Operator, OperatorConfig, registerOperator } = window.__foo__;
    class Go extends Operator {
      get config() {
        return new OperatorConfig({ name: "go", label: "Go on in the queue", unlisted: true });
      }
      async execute({ params }) {
        await go(params);
      }
    }
    registerOperator(Go, PLUGIN);
  }
  register();
})();
