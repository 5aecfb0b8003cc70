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
  const BAR = [["A", "accept"], ["R", "reject"], ["N", "needs boxes"], ["0", "negative"], ["Z", "undo"], ["B", "draw"], ["?", "help"]];
  const SAVE_PATIENCE_MS = 8000;
  const LOAD_PATIENCE_MS = 4000;
  const RELOAD_PATIENCE_MS = 60000;
  // A verdict sooner than this after an image has appeared is a key that bounced, not a look.
  const LEAST_LOOK_MS = 150;
  // More steps than this by arrow key would load every image on the way.
  const FAR = 6;
  const state = { busy: false, sample: "", since: performance.now(), touched: 0, guide: null, left: null, ahead: [], preview: null, next: null, marks: [] };

  const one = (mark) => document.querySelector(`[data-cy="${mark}"]`);
  const opened = () => new URL(location.href).searchParams.get("id") || "";
  const pause = (ms) => new Promise((done) => setTimeout(done, ms));
  const until = async (holds, patience_ms) => {
    const end = performance.now() + patience_ms;
    for (let value; performance.now() < end; await pause(15)) if ((value = holds())) return value;
    return null;
  };

  // Which image stands in front of the person: not what the address says, which is ahead of it, but what is drawn.
  function displayed() {
    const seen = (part) => part.checkVisibility({ visibilityProperty: true }); // another tab of the modal may be in front
    const picture = one("lighter-sample-image");
    if (picture) return seen(picture) && picture.complete && picture.naturalWidth ? decodeURIComponent(picture.src).split("/").pop().slice(0, 24) : "";
    const looker = one("modal-looker-container");
    if (!looker?.querySelector('canvas[canvas-loaded="true"]') || !seen(looker)) return "";
    const mark = Object.keys(looker).find((name) => name.startsWith("__reactFiber"));
    for (let part = mark && looker[mark], up = 0; part && up < 8; part = part.return, up++) {
      const id = part.memoizedProps?.sample?.sample?._id;
      if (id) return String(id.$oid || id);
    }
    return "";
  }

  function broken() {
    const picture = one("lighter-sample-image");
    return Boolean(picture?.complete && !picture.naturalWidth && decodeURIComponent(picture.src).includes(opened()));
  }

  const shown = () => until(() => !opened() || displayed() === opened() || broken(), LOAD_PATIENCE_MS);

  // Talking to the server

  // Grid only: an operator knows which images are selected.
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

  async function ask(act, params = {}) {
    let answer;
    try {
      const body = JSON.stringify({ sample: opened(), ...params });
      answer = await fetch(`/boxwright/${act}`, { method: "POST", headers: { "Content-Type": "application/json" }, body });
    } catch {
      throw new Error("the review does not answer: is `boxwright review` still running? Nothing that was stored is lost");
    }
    const told = await answer.json().catch(() => ({ error: `the review answered ${answer.status}` }));
    if (!answer.ok) throw new Error(told.error);
    return told;
  }

  const mediaUrl = (path) => `/media?filepath=${encodeURIComponent(path)}`;

  // The browser decodes the next picture while this one is looked at.
  function preload(path) {
    if (!path) return;
    const picture = new Image();
    picture.src = mediaUrl(path);
    picture.decode?.().catch(() => {});
    state.ahead = [picture, ...state.ahead].slice(0, 3);
  }

  // True once everything drawn is stored. Outside Annotate mode nothing can be open.
  async function stored() {
    const mark = () => one("annotation-save-state");
    if (!mark()) return true;
    // What was done a moment ago may not have reached the mark yet.
    if (performance.now() - state.touched < 1500) await new Promise(requestAnimationFrame);
    if (mark()?.dataset.settled === "true") return true;
    if (window.__boxwrightSave) window.__boxwrightSave();
    return until(() => !mark() || mark().dataset.settled === "true", SAVE_PATIENCE_MS);
  }

  // Everything that moves on goes through here, one at a time. Then comes the verdict on an image that the person saw before
  // the App was ready with it.
  async function once(act) {
    if (state.busy) return;
    state.busy = true;
    try {
      await act();
      for (let early; (early = state.next); ) {
        state.next = null;
        if (displayed() !== early.sample) return say("the last key was not taken", true);
        await judge(early.name, early.sample, early.looked_ms);
      }
    } catch (error) {
      say(error.message, true);
    } finally {
      unveil();
      state.next = null;
      state.busy = false;
    }
  }

  const verdict = (name) => once(async () => {
    const sample = opened();
    if (!sample) return refreshGrid(await execute(name));
    if (broken()) return say("this picture cannot be shown: its file has gone or is damaged. → goes on; bring the file back, then judge it", true);
    if (displayed() !== sample || state.sample !== sample) return say("this image is not shown yet; the key was not taken");
    await judge(name, sample, performance.now() - state.since);
  });

  async function judge(name, sample, looked_ms) {
    if (looked_ms < LEAST_LOOK_MS && name !== "undo") return;
    if (!(await stored())) throw new Error("the last edit is not stored yet; press the key again");
    await go(await ask(name, { sample, seconds: looked_ms / 1000 }));
  }

  // While the App is still getting ready with an image that is shown already, one verdict on it is kept.
  function early(name) {
    const shown = state.preview;
    if (shown && (performance.now() - shown.since >= LEAST_LOOK_MS || name === "undo")) state.next = { name, sample: shown.sample, looked_ms: performance.now() - shown.since };
  }

  // Going on

  async function go(result) {
    state.left = result.left;
    for (const note of result.notes || []) say(note, true);
    if (!result.next) {
      say("Every image of this queue has its verdict. Thank you!");
      if (opened()) tell(await ask("guide"));
    } else if (new URL(location.href).searchParams.has("view") && opened() && result.verdict !== "pending") {
      await stepInView();
    } else if (opened()) {
      await veil(result.preview);
      await walk(result.steps, result.next);
      await until(() => displayed() === result.next || broken(), LOAD_PATIENCE_MS);
      tell(result);
    }
    if (result.verdict && !result.notes?.length && result.next) say(result.verdict.replace("_", " "));
  }

  // Who has chosen a saved view goes through that, in its own order, and not through the whole queue.
  async function stepInView() {
    const from = opened();
    document.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", code: "ArrowRight", bubbles: true, cancelable: true }));
    if (!(await until(() => opened() !== from, LOAD_PATIENCE_MS))) return say("this was the last image of this view");
    await shown();
    tell(await ask("guide"));
  }

  // The next image with its boxes, drawn by us over the App's picture the moment the verdict is on the disk; the App needs a few
  // hundred milliseconds more. It takes all clicks, so that nobody draws on the image underneath.
  async function veil(next) {
    const place = (one("lighter-sample-renderer") || one("modal-looker-container"))?.getBoundingClientRect();
    if (!place || !next) return;
    const url = mediaUrl(next.filepath);
    const picture = state.ahead.find((each) => each.getAttribute("src") === url) || Object.assign(new Image(), { src: url });
    if (!picture.complete) await Promise.race([picture.decode().catch(() => {}), pause(LOAD_PATIENCE_MS)]);
    const cover = make("div", { id: "bw-veil" }, picture, drawn(next));
    for (const side of ["left", "top", "width", "height"]) cover.style[side] = `${place[side]}px`;
    unveil();
    document.body.append(cover);
    state.preview = { sample: next.sample, since: performance.now() };
    // It has to be on the screen before the App begins its work, which leaves no time to paint.
    await new Promise(requestAnimationFrame);
    await pause(0);
  }

  // Boxes `[x, y, w, h]` relative to an image of that size, as a drawing of the same shape.
  function drawn({ width, height, boxes }, dashed = false) {
    const svg = (tag, properties) => {
      const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
      for (const [name, value] of Object.entries(properties)) made.setAttribute(name, value);
      return made;
    };
    const sheet = svg("svg", { viewBox: `0 0 ${width} ${height}` });
    const size = Math.max(width, height) / 60;
    const named = []; // where names lie already: in a crowd one that would lie on another is left out
    for (const { label, color, box: [x, y, w, h] } of boxes) {
      const dash = dashed ? { "stroke-dasharray": "7 5" } : {};
      sheet.append(svg("rect", { x: x * width, y: y * height, width: w * width, height: h * height, stroke: color, fill: "none", "stroke-width": 2.5, "vector-effect": "non-scaling-stroke", ...dash }));
      const under = dashed ? Math.min((y + h) * height + size, height - size / 4) : Math.max(y * height - size / 3, size);
      const text = svg("text", { x: x * width, y: under, fill: color, "font-size": size, stroke: "#000", "stroke-width": size / 6, "paint-order": "stroke" });
      text.textContent = label;
      const place = [x * width, under - size, x * width + 0.55 * size * label.length, under];
      if (named.some((other) => place[0] < other[2] && other[0] < place[2] && place[1] < other[3] && other[1] < place[3])) continue;
      named.push(place);
      sheet.append(text);
    }
    return sheet;
  }

  // Suspects of an audit and detections of a run, which Annotate mode itself does not show: over its picture, wherever that is
  // zoomed or dragged to, dashed, and never in the way of the mouse.
  function marks() {
    const picture = one("lighter-sample-image"), frame = one("lighter-sample-renderer");
    let sheet = document.getElementById("bw-marks");
    const wanted = state.marks.length && picture && frame && !state.preview && displayed() === state.sample && localStorage.getItem("boxwright-marks") !== "off";
    if (!wanted) return sheet?.remove();
    const a = frame.getBoundingClientRect(), b = picture.getBoundingClientRect();
    const key = [state.sample, a.left, a.top, a.width, a.height, b.left, b.top, b.width, b.height].join();
    if (sheet?.dataset.key === key) return;
    sheet?.remove();
    const picked = drawn({ width: picture.naturalWidth, height: picture.naturalHeight, boxes: state.marks }, true);
    sheet = make("div", { id: "bw-marks" }, picked);
    sheet.dataset.key = key;
    Object.assign(sheet.style, { left: `${a.left}px`, top: `${a.top}px`, width: `${a.width}px`, height: `${a.height}px` });
    Object.assign(picked.style, { left: `${b.left - a.left}px`, top: `${b.top - a.top}px`, width: `${b.width}px`, height: `${b.height}px` });
    document.body.append(sheet);
  }

  function unveil() {
    const shown = state.preview;
    state.preview = null;
    document.getElementById("bw-veil")?.remove();
    // The clock of this image has been running since it was first seen.
    if (shown && displayed() === shown.sample) state.since = shown.since;
  }

  // The arrow keys walk through the grid's order, which is the queue's, and stay in Annotate mode. An image that was opened by
  // its address has no neighbours in the App; the next one is then opened by its id, and Annotate mode entered again.
  async function walk(steps, target) {
    const key = steps < 0 ? "ArrowLeft" : "ArrowRight";
    const annotating = inAnnotate();
    for (let step = 0; step < Math.abs(steps) && Math.abs(steps) <= FAR && opened() !== target; step++) {
      if (!one("nav-right-button") && !one("nav-left-button")) break;
      const from = opened();
      document.dispatchEvent(new KeyboardEvent("keydown", { key, code: key, bubbles: true, cancelable: true }));
      if (!(await until(() => opened() !== from, LOAD_PATIENCE_MS))) break;
    }
    if (opened() === target) return;
    window.__foo__.executeOperator("open_sample", { id: target });
    await until(() => opened() === target, LOAD_PATIENCE_MS);
    // Until then the page stands in the mode that the App may be about to leave.
    await shown();
    if (annotating) await annotate();
  }

  function refreshGrid(result) {
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

  // A page that is loaded with an image open may show it in Explore mode; keys count once it is in Annotate mode.
  async function comeBack() {
    await until(() => !opened() || one("annotate"), RELOAD_PATIENCE_MS);
    await shown();
    await annotate();
    state.sample = ""; // what is to be told about this image has not been asked for yet
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
    const guide = state.guide || (state.guide = await ask("guide"));
    const entry = (guide.classes || [])[place - 1];
    if (!entry) return say(`there is no class ${place}; ? lists them`, true);
    const field = one("root_label_container");
    if (!field) return say("select a box first, then press the digit of its class");
    const input = field.querySelector('input[role="combobox"]');
    if (!input) return say("this form has no class list", true);
    const told = () => say([entry.name, entry.definition].filter(Boolean).join(": "));
    if (input.value === entry.name) return told();
    // A combobox offers what is typed; React hears of it only through the prototype's own setter.
    input.focus();
    Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, "value").set.call(input, entry.name);
    input.dispatchEvent(new Event("input", { bubbles: true }));
    const offered = () => [...document.querySelectorAll('[role="option"]')].find((item) => item.textContent.trim() === entry.name);
    const option = await until(offered, LOAD_PATIENCE_MS);
    if (!option) {
      input.blur(); // else the next keys would be typed into it
      return say(`the App did not offer the class ${entry.name}`, true);
    }
    const types = { pointerdown: PointerEvent, mousedown: MouseEvent, pointerup: PointerEvent, mouseup: MouseEvent, click: MouseEvent };
    for (const [type, Kind] of Object.entries(types)) option.dispatchEvent(new Kind(type, { bubbles: true, cancelable: true, button: 0 }));
    input.blur();
    told();
  }

  // What the person sees

  const style = document.createElement("style");
  style.textContent = `
    #bw-bar, #bw-guide, .bw-cover, .bw-say { font: 13px/1.45 system-ui, sans-serif; color: #eee; z-index: 2147483000; position: fixed; }
    #bw-bar { left: 50%; bottom: 1px; font-size: 12.5px; line-height: 1.25; transform: translateX(-50%); background: #1b1b1bf2; border: 1px solid #444; border-radius: 6px;
      padding: 1px 12px; pointer-events: none; width: max-content; max-width: 96vw; }
    #bw-bar, #bw-bar > div { display: flex; justify-content: center; gap: 1px 14px; flex-wrap: wrap; white-space: nowrap; }
    /* The App's own bar lies on the lower 42 px of the picture while the pointer is over it: let them be seen, and drawn on. */
    [data-cy=lighter-toolbar], div:has(> [data-cy=lighter-toolbar]) { background: transparent !important; pointer-events: none; }
    [data-cy=lighter-toolbar] > div { background: #1b1b1bcc; border-radius: 6px; } [data-cy=lighter-toolbar] [aria-label] { pointer-events: auto; }
    #bw-bar b { color: #ff6d04; font-weight: 600; } #bw-bar .bw-why { color: #ffd479; } #bw-bar .bw-left { color: #9cd; }
    #bw-veil { position: fixed; z-index: 2147482000; background: #1a1a1a; } #bw-veil > * { position: absolute; inset: 0; width: 100%; height: 100%; object-fit: contain; }
    #bw-marks { position: fixed; z-index: 2147481000; overflow: hidden; pointer-events: none; } #bw-marks svg { position: absolute; overflow: visible; }
    .bw-swatch { display: inline-block; width: 10px; height: 10px; border-radius: 2px; margin: 0 5px 0 4px; }
    #bw-guide { right: 44px; bottom: 64px; width: 264px; max-height: 38vh; overflow: auto; background: #1b1b1bf2; border: 1px solid #444; border-radius: 6px; padding: 8px 12px; }
    #bw-guide p { margin: 4px 0; } #bw-guide p span + span { color: #bbb; }
    .bw-cover { inset: 0; background: #000c; display: flex; align-items: center; justify-content: center; }
    .bw-cover > div { background: #222; border: 1px solid #555; border-radius: 8px; padding: 18px 26px; max-width: 94vw; max-height: 88vh; overflow: auto; }
    #bw-help > div { max-width: 760px; }
    .bw-cover h2 { font-size: 15px; margin: 0 0 10px; } .bw-cover h2:not(:first-child) { margin-top: 14px; } .bw-cover td { padding: 3px 14px 3px 0; vertical-align: top; }
    .bw-twins { display: grid; grid-template-columns: repeat(var(--columns), auto); gap: 10px 14px; justify-content: center; } .bw-twins figure { margin: 0; text-align: center; }
    .bw-twins img { max-width: calc(84vw / var(--columns) - 14px); max-height: calc(72vh / var(--rows) - 40px); display: block; margin: 0 auto 6px; border: 2px solid transparent; }
    .bw-twins .bw-here img { border-color: #ff6d04; }
    kbd { background: #333; border: 1px solid #666; border-radius: 4px; padding: 0 6px; font: 12px ui-monospace, monospace; }
    .bw-say { left: 50%; bottom: 64px; transform: translateX(-50%); background: #24435c; border-radius: 6px; padding: 8px 16px; max-width: 70vw; pointer-events: none; }
    .bw-say.bw-bad { background: #7a2b1d; }`;
  document.head.append(style);

  const make = (tag, properties = {}, ...children) => {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  };

  function say(text, bad = false) {
    document.querySelectorAll(bad ? ".bw-say" : ".bw-say:not(.bw-bad)").forEach((old) => old.remove());
    const note = make("div", { className: `bw-say${bad ? " bw-bad" : ""}`, textContent: text });
    document.body.append(note);
    setTimeout(() => note.remove(), bad ? 6000 : 2500);
  }

  // What the server says about the image that is open now.
  function tell({ about, marks, upcoming }) {
    state.marks = marks || [];
    preload(upcoming);
    bar(about);
  }

  const swatch = (entry) => {
    const made = make("span", { className: "bw-swatch" });
    made.style.background = entry.color;
    return made;
  };

  // The keys, the classes, and why this image is here: in one line where that fits.
  function bar(about) {
    let line = document.getElementById("bw-bar");
    if (!opened()) {
      document.getElementById("bw-guide")?.remove();
      return line?.remove();
    }
    if (!line) document.body.append((line = make("div", { id: "bw-bar" })));
    const chip = (key, word, mark) => make("span", {}, make("b", { textContent: key }), ...(mark ? [mark] : [" "]), word);
    const keys = BAR.map(([key, word]) => chip(key, word));
    const classes = (state.guide?.classes || []).slice(0, 9).map((entry, place) => chip(place + 1, entry.name, swatch(entry)));
    const twins = about?.twins > 1 ? `D: ${about.twins} near-duplicates side by side` : "";
    const marked = state.marks.length ? `M: ${state.marks.length} mark(s) on, off` : "";
    const judged = about?.review && about.review !== "pending" ? `${about.review.replace("_", " ")} by ${about.reviewer || "somebody"}` : "";
    const whose = { "second opinion": "second opinion: your word alone", gold: "", others: "of another reviewer's part" }[about?.part] || "";
    const quality = (about?.quality || []).map((flag) => `quality: ${flag}`).join(", ");
    const why = [about?.reason, marked, twins, quality === about?.reason ? "" : quality, whose, judged].filter(Boolean).join(" · ");
    const left = state.left == null ? "" : `${state.left} left`;
    line.replaceChildren(make("div", {}, ...keys, make("span", { className: "bw-left", textContent: left })), make("div", {}, ...classes, make("span", { className: "bw-why", textContent: why })));
    guideCard();
  }

  // The definitions of the classes, where there are any, until G puts them away.
  function guideCard() {
    const wanted = localStorage.getItem("boxwright-guide") !== "off";
    const entries = (state.guide?.classes || []).filter((entry) => entry.definition);
    const old = document.getElementById("bw-guide");
    if (!wanted || !entries.length || !opened()) return old?.remove();
    if (old) return;
    const lines = entries.map((entry) => make("p", {}, swatch(entry), make("span", { textContent: `${entry.name}: ` }), make("span", { textContent: entry.definition })));
    document.body.append(make("div", { id: "bw-guide", title: "G puts this away" }, ...lines));
  }

  function toggleGuide() {
    localStorage.setItem("boxwright-guide", document.getElementById("bw-guide") ? "off" : "on");
    guideCard();
  }

  const covered = () => document.querySelector(".bw-cover");
  function cover(id, ...children) {
    const made = make("div", { id, className: "bw-cover" }, make("div", {}, ...children));
    made.addEventListener("click", (event) => event.target === made && made.remove());
    document.body.append(made);
  }

  const keyTable = (lines) => make("table", {}, ...lines.map(([key, ...text]) => make("tr", {}, make("td", {}, make("kbd", { textContent: key })), make("td", {}, ...text))));

  async function help() {
    const guide = state.guide?.classes ? state.guide : (state.guide = await ask("guide", { sample: "" }));
    const rows = [
      ["A", "accept: the boxes are right"], ["R", "reject: the image does not belong here"], ["N", "needs boxes: send it back"],
      ["0", "negative: nothing of any class is on it"], ["Z", "undo the last verdict"], ["B", "draw boxes (enters Annotate mode)"],
      ["1–9", "the class of the selected box"], ["Backspace", "delete the selected box"], ["D", "near-duplicates side by side: keep one"],
      ["M", "marks of an audit or a run, on and off"], ["G", "class guide at the side, on and off"], ["← →", "previous, next image"], ["Enter", "in the grid: open the first image and annotate"], ["?", "this list"],
    ];
    const classes = (guide.classes || []).map((entry, place) => [place < 9 ? place + 1 : "–", swatch(entry), [entry.name, entry.definition].filter(Boolean).join(": ")]);
    const title = (text) => make("h2", { textContent: text });
    cover("bw-help", title("Keys"), keyTable(rows), title("Classes"), keyTable(classes));
  }

  // Near-duplicates side by side, all of them on the screen at once; the digit of one keeps it, and the others that wait are
  // rejected. Of a group with more than there are digits the rest waits, and D shows them next.
  async function compare() {
    if (!opened()) return;
    const { images, of } = await ask("twins");
    if (images.length < 2) return say("this image has no near-duplicate");
    state.twins = images;
    const figures = images.map((twin, place) => make("figure", { className: twin.id === opened() ? "bw-here" : "" },
      make("img", { src: mediaUrl(twin.filepath) }),
      make("kbd", { textContent: place + 1 }), ` ${twin.size} · ${twin.boxes} box(es) · ${twin.review.replace("_", " ")}`));
    const columns = images.length < 4 ? images.length : Math.ceil(Math.sqrt(images.length));
    const sheet = make("div", { className: "bw-twins" }, ...figures);
    sheet.style.setProperty("--columns", columns);
    sheet.style.setProperty("--rows", Math.ceil(images.length / columns));
    const which = of > images.length ? `${images.length} of ${of} near-duplicates` : "Near-duplicates";
    cover("bw-twins", make("h2", { textContent: `${which}: the digit of the one to keep rejects the others here that wait · Esc leaves all` }), sheet);
  }

  const keep = (place) => once(async () => {
    const twin = state.twins?.[place - 1];
    if (!twin) return;
    // A picture that has not come yet was not looked at.
    const seen = [...document.querySelectorAll("#bw-twins img")].map((picture) => picture.complete && picture.naturalWidth > 0);
    const shown = state.twins.filter((_, number) => seen[number]).map((each) => each.id);
    covered()?.remove();
    if (!(await stored())) throw new Error("the last edit is not stored yet; press D again");
    const result = await ask("keep", { sample: twin.id, here: opened(), shown });
    await go({ ...result, verdict: "" });
    say(`kept one, rejected ${result.images}; Z takes that back${result.more ? ` · ${result.more} more of the group wait: D shows them` : ""}`);
  });

  // From the grid: open the first image that waits, as a click on it does; again where the grid was just being laid out.
  async function start() {
    const tile = () => document.querySelector('[data-cy="looker"]');
    for (let times = 0; times < 5 && !opened(); times++) {
      const first = await until(tile, LOAD_PATIENCE_MS);
      for (const kind of ["mousedown", "mouseup", "click"]) first?.dispatchEvent(new MouseEvent(kind, { bubbles: true, button: 0 }));
      await until(opened, 1000);
    }
    if (!(await annotate())) say("the grid has no image to open yet; press Enter again", true);
  }

  // Listening

  const typing = (target) => target.isContentEditable || /^(TEXTAREA|SELECT)$/.test(target.tagName) ||
    (target.tagName === "INPUT" && !/^(checkbox|radio|button|range)$/.test(target.type)) || Boolean(target.closest?.(".monaco-editor"));

  const inGrid = (event) => !opened() && !event.target.closest?.("button, a, [role=button], [role=option]");

  function actOf(key, event) {
    const cover = covered();
    if (cover) {
      if (cover.id === "bw-twins" && /^[1-9]$/.test(key)) return () => keep(Number(key));
      return () => cover.remove(); // any other key only puts it away: nobody judges what they do not see
    }
    if (state.busy && opened()) {
      // Between two images: a verdict on the one that is shown already is kept, and nothing may touch boxes of the one before.
      if (key in VERDICTS) return () => early(VERDICTS[key]);
      return /^([1-9b]|Backspace|Delete|Arrow.*)$/.test(key) ? () => {} : null;
    }
    if (key in VERDICTS) return () => verdict(VERDICTS[key]);
    if (key === "b") return draw;
    if (key === "d" && opened()) return compare;
    if (key === "g" && opened()) return toggleGuide;
    if (key === "m" && opened()) return () => localStorage.setItem("boxwright-marks", localStorage.getItem("boxwright-marks") === "off" ? "on" : "off");
    if (key === "?") return help;
    if (key === "Enter" && inGrid(event)) return start;
    if (/^[1-9]$/.test(key) && opened()) return () => relabel(Number(key));
    return null;
  }

  window.addEventListener("keydown", (event) => {
    if (!event.isTrusted || event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
    if (/^(Shift|Control|Alt|Meta)/.test(event.key)) return;
    state.touched = event.key.toLowerCase() in VERDICTS ? state.touched : performance.now();
    const act = actOf(event.key.length === 1 ? event.key.toLowerCase() : event.key, event);
    if (!act) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    if (event.repeat) return; // a key held down speaks once
    Promise.resolve(act()).catch((error) => say(error.message, true));
  }, true);

  for (const kind of ["pointerdown", "pointerup"]) window.addEventListener(kind, () => (state.touched = performance.now()), true);

  // The clock of an image starts when it is drawn.
  setInterval(async () => {
    const sample = displayed();
    marks();
    // The form of a selected box reaches down to where the guide stands; the classes are in the bar as well.
    const guide = document.getElementById("bw-guide");
    if (guide) guide.hidden = Boolean(one("root_label_container"));
    if (!opened()) state.sample = "";
    if (!opened() || !sample || sample === state.sample) return opened() || bar();
    state.sample = sample;
    if (state.preview?.sample !== sample) state.since = performance.now();
    if (state.busy) return; // the answer to the verdict told about this one
    try {
      state.guide = await ask("guide", { sample });
      state.left = state.guide.left;
      if (opened() === sample) tell(state.guide);
    } catch {
      bar();
    }
  }, 30);

  // Buttons run the same operators; the page goes on through this one.
  function register() {
    const { Operator, OperatorConfig, registerOperator } = window.__foo__;
    class Go extends Operator {
      get config() {
        return new OperatorConfig({ name: "go", label: "Go on in the queue", unlisted: true });
      }
      async execute({ params }) {
        await once(() => go(params));
      }
    }
    registerOperator(Go, PLUGIN);
  }
  register();
  if (opened()) once(comeBack);
})();
