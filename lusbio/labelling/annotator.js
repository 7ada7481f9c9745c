// The annotator in the browser. It knows a number and frames, nothing else of a video; what Python answers decides
// whether something is saved. Text goes into the page by textContent alone.

const WAIT_MS = 3000; // for an acknowledgement, before NOT SAVED
const PAUSE_MS = 60000; // longer than that without a key or a move is no work
const BITMAP_BYTES = 200e6;
const TICK_MM = 5;
const UNSURE = "unsure";
const SLIDERS = {
  speed: ["Speed", 0.1, 2, 0.1, 1],
  brightness: ["Brightness", 0.2, 3, 0.1, 1],
  contrast: ["Contrast", 0.2, 3, 0.1, 1],
  gamma: ["Gamma", 0.3, 3, 0.1, 1],
};
const KEYS = [
  ["1 2 3 ...", "option of the current group; for severity the grade itself"],
  ["u", "unsure"],
  ["Backspace", "clear the group"],
  ["Up, Down, k, j", "another group"],
  ["Space", "play, stop"],
  ["Left, Right", "one frame"],
  ["+, -", "zoom; drag to move"],
  ["x", "video not usable"],
  ["m", "comment; Escape leaves it"],
  ["Ctrl+Z", "take back a tick"],
  ["Enter", "save, next video"],
  ["Shift+Enter", "back to the video before"],
  ["?", "these keys"],
];

function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

// --- frames: decoded around the playhead, at most BITMAP_BYTES of them ---

function makePlayer(draw, announce) {
  let blobs = [], bitmaps = new Map(), room = 1, at = 0, shown = -1, fps = 25, filling = false, film = 0;
  let playing = false, since = 0, began = 0, alive = true, request = 0;
  const player = { speed: 1 };
  const wrap = (frame) => (frame + blobs.length) % blobs.length;

  // Frames to have at hand: this one, those that come next, and a few that were before it.
  function near() {
    const size = Math.min(room, blobs.length), behind = Math.min(20, size >> 2);
    return Array.from({ length: size }, (_, k) => wrap(at + (k < size - behind ? k : size - behind - k - 1)));
  }

  function wanted() {
    return near().find((frame) => blobs[frame] && !bitmaps.has(frame)) ?? -1;
  }

  function forget() {
    if (bitmaps.size < room) return;
    const kept = new Set(near());
    for (const [frame, bitmap] of bitmaps) {
      if (kept.has(frame)) continue;
      bitmap.close();
      bitmaps.delete(frame);
    }
  }

  async function fill() {
    if (filling) return;
    filling = true;
    const own = film;
    for (let frame = wanted(); alive && own === film && frame >= 0; frame = wanted()) {
      const bitmap = await createImageBitmap(blobs[frame]).catch(() => null);
      if (!alive || own !== film || !bitmap) { bitmap?.close(); break; }
      if (bitmaps.size === 0) room = Math.max(2, Math.floor(BITMAP_BYTES / (4 * bitmap.width * bitmap.height)));
      forget();
      bitmaps.set(frame, bitmap);
      if (frame === at) show();
    }
    filling = false;
    if (alive && own !== film) fill();
  }

  function show() {
    const bitmap = bitmaps.get(at);
    if (bitmap && alive) {
      shown = at;
      draw(bitmap);
      announce(shown, blobs.length);
    }
    fill();
  }

  function step(now) {
    if (!alive) return;
    if (playing && blobs.length > 1) {
      const due = (began + Math.floor(((now - since) / 1000) * fps * player.speed)) % blobs.length;
      if (due !== at) { at = due; show(); }
    }
    request = requestAnimationFrame(step);
  }

  player.open = (count, itsFps) => {
    film++;
    for (const bitmap of bitmaps.values()) bitmap.close();
    blobs = new Array(count).fill(null);
    bitmaps = new Map();
    [at, shown, fps] = [0, -1, itsFps];
    player.play(true);
  };
  player.take = (first, parts) => {
    parts.forEach((part, k) => { blobs[first + k] = new Blob([part], { type: "image/jpeg" }); });
    fill();
  };
  player.play = (on = !playing) => {
    [playing, since, began] = [on, performance.now(), at];
  };
  player.setSpeed = (speed) => { player.speed = speed; player.play(playing); };
  player.move = (by) => {
    player.play(false);
    if (blobs.length) at = wrap(at + by);
    show();
  };
  player.redraw = () => { if (bitmaps.has(shown)) draw(bitmaps.get(shown)); };
  player.isPlaying = () => playing;
  player.close = () => {
    alive = false;
    cancelAnimationFrame(request);
    for (const bitmap of bitmaps.values()) bitmap.close();
    bitmaps.clear();
  };
  request = requestAnimationFrame(step);
  return player;
}

// --- the sheet: one option per group, and the rules that Python checks again ---

function makeRules(groups) {
  const byName = new Map(groups.map((group) => [group.name, group]));
  const ownerOf = (name) => groups.find((group) => group.options.some((option) => option.name === name)).name;
  const setters = groups.flatMap((group) => group.options.filter((o) => o.sets).map((o) => [group.name, o]));

  // Answers after a tick, or a sentence that says why not. option null: unsure; undefined: clear.
  return function choose(answers, name, option) {
    const next = { ...answers };
    if (option === undefined) delete next[name];
    else if (option === null) next[name] = null;
    else if (option.beside) {
      const ticked = next[name] ?? [];
      if (!ticked.some((other) => option.beside.includes(other))) return `${option.text}: only beside weak or bold`;
      next[name] = ticked.includes(option.name) ? ticked.filter((o) => o !== option.name) : [...ticked, option.name];
    } else {
      const flags = byName.get(name).options.filter((o) => o.beside?.includes(option.name)).map((o) => o.name);
      next[name] = [option.name, ...(next[name] ?? []).filter((other) => flags.includes(other))];
    }
    for (const [setter, { name: setting, sets }] of setters) {
      const target = ownerOf(sets), is = (group, what) => next[group]?.[0] === what;
      if (is(setter, setting)) {
        if (name === target && !is(target, sets)) return "There is no B-line, so no origin";
        next[target] = [sets];
      } else if (name === setter && is(target, sets)) {
        delete next[target];
      } else if (name === target && is(target, sets) && next[setter]) {
        return "There are B-lines, so there is an origin";
      }
    }
    return next;
  };
}

// --- the widget ---

function render({ model, el }) {
  const id = Math.random().toString(36).slice(2);
  const root = element("div", { className: "lusbio-annotator", tabIndex: 0, "data-lm-suppress-shortcuts": "true" });
  root.setAttribute("role", "application");
  root.setAttribute("aria-label", "Video annotator");
  const progress = element("span", { className: "count", textContent: "Waiting for Python ..." });
  const state = element("span", { className: "state", role: "status" });
  const note = element("span", { className: "note", role: "alert" });
  const canvas = element("canvas", { width: 4, height: 3, role: "img", "aria-label": "Ultrasound video" });
  const ruler = element("canvas", { className: "ruler", "aria-hidden": "true" });
  const frame = element("div", { className: "frame" }, ruler, canvas);
  const counter = element("span", { className: "counter" });
  const scale = element("span", { className: "scale" });
  const sheet = element("form", { className: "sheet", "aria-label": "What the video shows" });
  const unusable = element("input", { type: "checkbox" });
  const comment = element("textarea", { rows: 1, maxLength: 2000 });
  const help = element("details", { className: "help" }, element("summary", { textContent: "Keys (?)" }));
  const rows = KEYS.map(([key, what]) => element("tr", {}, element("th", { scope: "row", textContent: key }),
    element("td", { textContent: what })));
  help.append(element("table", {}, element("tbody", {}, ...rows)));

  let groups = [], choose = null, current = 0, video = null, answers = {}, undo = [], request = 0, pending = null;
  let zoom = 1, pan = [0, 0], over = false, gone = false, fresh = true, lastActive = performance.now(), seconds = 0, focused = false;
  const settings = Object.fromEntries(Object.entries(SLIDERS).map(([name, slider]) => [name, slider[4]]));
  const say = (text) => { note.textContent = text; };

  // --- talking to Python: one thing at a time is not acknowledged, and it is said again until it is ---

  function send(message) {
    try { model.send(message); } catch (error) { console.warn("annotator:", error.message); }
  }

  function ask(what) {
    if (!video || over || video.number > video.total) return;
    countTime();
    const message = {
      do: what, request: ++request, number: video.number, usable: video.usable, answers, comment: comment.value, seconds,
    };
    pending = { message, since: performance.now(), failed: "" };
    setState(what === "save" ? "Saving ..." : "");
    send(message);
  }

  function setState(text, bad = false) {
    state.textContent = text;
    state.classList.toggle("bad", bad);
  }

  const clock = setInterval(() => {
    if (!root.isConnected) { player.play(false); return; }
    if (!pending || performance.now() - pending.since < WAIT_MS) return;
    const why = pending.failed || "no answer from Python; if that stays, run the cell or load the page again";
    setState(`NOT SAVED: ${why}. Your ticks are still here.`, true);
    pending.since = performance.now();
    send(pending.message);
  }, 250);

  function settle(message) {
    if (message.request !== pending?.message.request) return false;
    pending = null;
    return true;
  }

  const hear = {
    sheet(message) { if (!groups.length) buildSheet(message.groups); },
    video(message) { if (message.number !== video?.number) openVideo(message); },
    frames(message, buffers) {
      if (message.number !== video?.number) return;
      const texts = (message.base64 ?? []).map((text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)));
      player.take(message.first, texts.length ? texts : buffers);
    },
    kept(message) { if (settle(message)) setState("Ticks kept"); },
    saved(message) { if (settle(message)) setState("Saved"); },
    refused(message) { if (settle(message)) { setState(""); say(message.text); } },
    failed(message) {
      if (message.request !== pending?.message.request) { say(message.text); return; }
      pending.failed = message.text;
      setState(`NOT SAVED: ${message.text}. Your ticks are still here.`, true);
    },
    over(message) {
      [over, pending] = [true, null];
      setState(`NOT SAVED: ${message.text}`, true);
      player.play(false);
    },
    done(message) {
      video = { number: message.total + 1, total: message.total, usable: false, frames: 0, asked: [] };
      progress.textContent = `All ${message.total} are labelled`;
      root.classList.add("done");
      root.classList.remove("broken");
      say("Nothing is left to do. Shift+Enter goes back.");
    },
  };
  const onMessage = (message, buffers) => hear[message.say]?.(message, buffers ?? []);
  model.on("msg:custom", onMessage);

  // --- time: while the page is visible, without pauses ---

  function countTime() {
    const now = performance.now(), passed = now - lastActive;
    if (document.visibilityState === "visible" && passed < PAUSE_MS) seconds += passed / 1000;
    lastActive = now;
  }
  const onVisible = () => {
    if (document.visibilityState === "visible") lastActive = performance.now();
    else if (performance.now() - lastActive < PAUSE_MS) seconds += (performance.now() - lastActive) / 1000;
  };
  document.addEventListener("visibilitychange", onVisible);
  for (const kind of ["pointermove", "pointerdown", "keydown"]) root.addEventListener(kind, countTime, true);

  // --- the picture ---

  function draw(bitmap) {
    if (fresh) {
      [canvas.width, canvas.height, fresh] = [bitmap.width, bitmap.height, false];
      frame.style.setProperty("--aspect", bitmap.width / bitmap.height);
      drawRuler();
    }
    const { width, height } = canvas, context = canvas.getContext("2d");
    pan = pan.map((move, k) => Math.max(Math.min(0, move), [width, height][k] * (1 - zoom)));
    context.imageSmoothingEnabled = zoom > 1;
    context.drawImage(bitmap, pan[0], pan[1], width * zoom, height * zoom);
  }

  // As tall as the picture is shown, so that its ticks lie where they belong.
  function drawRuler() {
    const sharp = window.devicePixelRatio || 1, wide = ruler.clientWidth, tall = ruler.clientHeight;
    [ruler.width, ruler.height] = [wide * sharp, tall * sharp];
    if (!video?.depth_mm || !tall) return;
    const context = ruler.getContext("2d"), shown = tall / canvas.height;
    context.scale(sharp, sharp);
    [context.fillStyle, context.font, context.textBaseline] = ["#dfe6ee", "11px sans-serif", "middle"];
    for (let mm = 0; mm <= video.depth_mm; mm += TICK_MM) {
      const y = (pan[1] + (mm / video.depth_mm) * canvas.height * zoom) * shown, long = mm % (2 * TICK_MM) === 0;
      context.fillRect(wide - (long ? 10 : 6), Math.min(y, tall - 1), 10, 1);
      if (long) context.fillText(String(mm), 3, Math.min(Math.max(y, 6), tall - 6));
    }
  }
  const resized = new ResizeObserver(drawRuler);
  resized.observe(frame);

  const player = makePlayer(draw, (frame, count) => {
    counter.textContent = `frame ${frame + 1} of ${count}`;
    if (!focused) { focused = true; root.focus({ preventScroll: true }); }
  });

  function setZoom(by) {
    const before = zoom;
    zoom = Math.min(6, Math.max(1, zoom * by));
    pan = pan.map((move, k) => {
      const half = [canvas.width, canvas.height][k] / 2;
      return half - ((half - move) * zoom) / before;
    });
    player.redraw();
    drawRuler();
  }

  let dragged = null;
  canvas.addEventListener("pointerdown", (event) => {
    const shown = canvas.clientWidth / canvas.width;
    dragged = [event.clientX - pan[0] * shown, event.clientY - pan[1] * shown, shown];
    canvas.setPointerCapture(event.pointerId);
    root.focus({ preventScroll: true });
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!dragged || zoom === 1) return;
    pan = [(event.clientX - dragged[0]) / dragged[2], (event.clientY - dragged[1]) / dragged[2]];
    player.redraw();
    drawRuler();
  });
  canvas.addEventListener("pointerup", () => { dragged = null; });

  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const part = (parent, tag, attributes) => {
    const made = parent.appendChild(document.createElementNS(svg.namespaceURI, tag));
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return made;
  };
  const transfer = part(part(svg, "filter", { id: `gamma-${id}`, "color-interpolation-filters": "sRGB" }),
    "feComponentTransfer", {});
  const curves = ["R", "G", "B"].map((c) => part(transfer, `feFunc${c}`, { type: "gamma", exponent: 1 }));
  for (const [name, value] of Object.entries({ width: 0, height: 0, "aria-hidden": "true" })) svg.setAttribute(name, value);

  const sliders = element("div", { className: "sliders" });
  for (const [name, [text, min, max, stepBy, usual]] of Object.entries(SLIDERS)) {
    const input = element("input", { type: "range", min, max, step: stepBy, value: usual, name });
    input.addEventListener("input", () => { settings[name] = Number(input.value); applySettings(); });
    sliders.append(element("label", {}, `${text} `, input));
  }
  function applySettings() {
    const plain = settings.brightness === 1 && settings.contrast === 1 && settings.gamma === 1;
    const looks = `brightness(${settings.brightness}) contrast(${settings.contrast}) url(#gamma-${id})`;
    canvas.style.filter = plain ? "" : looks;
    curves.forEach((curve) => curve.setAttribute("exponent", 1 / settings.gamma));
    player.setSpeed(settings.speed);
  }
  const button = (text, act, name = text) => {
    const made = element("button", { type: "button", textContent: text, "aria-label": name, title: name });
    made.addEventListener("click", () => { act(); if (!gone) root.focus({ preventScroll: true }); });
    return made;
  };
  sliders.append(button("Reset", () => {
    for (const input of sliders.querySelectorAll("input")) {
      input.value = SLIDERS[input.name][4];
      settings[input.name] = SLIDERS[input.name][4];
    }
    [zoom, pan] = [1, [0, 0]];
    applySettings();
    player.redraw();
    if (video) drawRuler();
  }, "Reset picture"));

  // --- the sheet ---

  function buildSheet(itsGroups) {
    groups = itsGroups;
    choose = makeRules(groups);
    sheet.replaceChildren(...groups.map((group, place) => {
      const box = element("fieldset", {}, element("legend", { textContent: group.title }));
      const begin = /^\d$/.test(group.options[0].name) ? 0 : 1;
      const line = element("div", { className: "options" });
      const offered = [...group.options, { name: UNSURE, text: UNSURE, meaning: "I cannot tell", unsure: true }];
      offered.forEach((option, k) => {
        const input = element("input", {
          type: option.beside ? "checkbox" : "radio", name: `${id}-${place}`, value: option.name,
        });
        input.addEventListener("click", (event) => {
          event.preventDefault(); // what is ticked follows from the answers
          setTimeout(() => tick(place, option.unsure ? null : option));
          if (event.detail) root.focus({ preventScroll: true });
        });
        const key = option.unsure ? "u" : String(begin + k);
        const hint = element("kbd", { textContent: key, "aria-hidden": "true" });
        line.append(element("label", { title: option.meaning }, input, hint, ` ${option.text}`));
      });
      box.append(line);
      box.addEventListener("pointerdown", () => setCurrent(place));
      box.addEventListener("focusin", () => setCurrent(place));
      box.append(element("span", { className: "said" }));
      return box;
    }));
  }

  function asked(place) { return video?.asked.includes(groups[place]?.name); }

  function setCurrent(place, scroll = true) {
    if (!asked(place)) return;
    current = place;
    [...sheet.children].forEach((box, k) => box.classList.toggle("current", k === place));
    if (scroll) sheet.children[place].scrollIntoView({ block: "nearest" });
  }

  function moveCurrent(by) {
    for (let place = current + by; place >= 0 && place < groups.length; place += by) {
      if (asked(place)) { setCurrent(place); return; }
    }
  }

  function tick(place, option) {
    if (!video?.usable || over || !asked(place)) return;
    setCurrent(place);
    const before = answers, next = choose(answers, groups[place].name, option);
    if (typeof next === "string") { say(next); showAnswers(); return; }
    say("");
    undo.push(before);
    answers = next;
    showAnswers();
    ask("tick");
    const flagged = option && groups[place].options.some((other) => other.beside?.includes(option.name));
    if (option === null || (option && !option.beside && !flagged)) {
      moveCurrent(1);
      // An answer that was set by another one is passed over.
      const set = groups[place].options.find((o) => o.sets && o === option)?.sets;
      if (set && groups[current].options.some((o) => o.name === set)) moveCurrent(1);
    }
  }

  function showAnswers() {
    groups.forEach((group, place) => {
      const box = sheet.children[place], ticked = answers[group.name];
      for (const input of box.querySelectorAll("input")) {
        input.checked = ticked === null ? input.value === UNSURE : Boolean(ticked?.includes(input.value));
      }
      box.disabled = !asked(place) || !video.usable;
      box.classList.toggle("open", ticked === undefined && video.usable);
      const text = (side) => (side[group.name] ?? [UNSURE])
        .map((name) => group.options.find((option) => option.name === name)?.text ?? name).join(", ");
      const sides = asked(place) ? (video.sides ?? []) : [];
      const words = sides.map((side) => (Object.keys(side).length ? text(side) : "not usable"));
      box.querySelector(".said").textContent = words.length ? `one says ${words[0]}; the other ${words[1]}` : "";
    });
    unusable.checked = video ? !video.usable : false;
  }

  function setUsable(usable) {
    if (!video || over || (usable && !video.frames)) { showAnswers(); return; }
    video.usable = usable;
    showAnswers();
    ask("tick");
  }

  function openVideo(message) {
    video = message;
    root.classList.remove("done");
    root.classList.toggle("broken", !video.frames);
    [answers, undo, seconds, lastActive] = [{ ...video.answers }, [], video.seconds, performance.now()];
    [zoom, pan, pending, fresh] = [1, [0, 0], null, true];
    comment.value = video.comment;
    progress.textContent = `${video.number} of ${video.total}`;
    scale.textContent = video.depth_mm ? `ticks: ${TICK_MM} mm` : "no scale: sizes are guesses";
    counter.textContent = "";
    say(video.frames ? "" : "This video cannot be shown. Enter records that and goes on.");
    current = 0;
    showAnswers();
    setCurrent(Math.max(0, groups.findIndex((group, place) => asked(place) && !(group.name in answers))), false);
    player.open(video.frames, video.fps);
  }

  function save() {
    if (!video || over || video.number > video.total) return;
    const open = groups.findIndex((group) => !(group.name in answers));
    if (video.usable && open >= 0) {
      setCurrent(open);
      say(`${groups[open].title} is open: answer it, or press u for unsure`);
      return;
    }
    say("");
    ask("save");
  }

  function back() {
    if (!video || over || video.number < 2) return;
    send({ do: "go", number: video.number - 1 });
  }

  // --- keys ---

  function onKey(event) {
    const typing = event.target === comment, key = event.key, at = event.target;
    if (typing && !["Escape", "Enter"].includes(key)) { event.stopPropagation(); return; }
    if (event.altKey || event.metaKey || (event.ctrlKey && key.toLowerCase() !== "z")) return;
    if (at.type === "range" && /^(Arrow|Home|End|Page)/.test(key)) return;
    if (["BUTTON", "SUMMARY"].includes(at.tagName) && [" ", "Enter"].includes(key)) return;
    if (key === " " && at.tagName === "INPUT" && at.type !== "range" && !at.checked) return;
    const group = groups[current], digit = /^\d$/.test(key) ? Number(key) : -1;
    const acts = {
      Escape: () => root.focus(),
      Enter: () => (typing ? root.focus() : event.shiftKey ? back() : save()),
      Backspace: () => tick(current, undefined),
      ArrowUp: () => moveCurrent(-1), k: () => moveCurrent(-1),
      ArrowDown: () => moveCurrent(1), j: () => moveCurrent(1),
      ArrowLeft: () => player.move(-1), ArrowRight: () => player.move(1),
      " ": () => player.play(),
      "+": () => setZoom(1.25), "=": () => setZoom(1.25), "-": () => setZoom(0.8),
      u: () => tick(current, null),
      x: () => setUsable(!video?.usable),
      m: () => comment.focus(),
      z: () => event.ctrlKey && undo.length && [answers = undo.pop(), showAnswers(), ask("tick")],
      "?": () => { help.open = !help.open; },
    };
    let act = acts[key];
    if (digit >= 0 && group) {
      const option = group.options.find((o) => o.name === key) ?? group.options[digit - 1];
      act = () => option && tick(current, option);
    }
    if (!act) return;
    event.preventDefault();
    event.stopPropagation();
    act();
  }
  root.addEventListener("keydown", onKey);
  unusable.addEventListener("change", () => setUsable(!unusable.checked));
  comment.addEventListener("change", () => ask("tick"));
  sheet.addEventListener("submit", (event) => event.preventDefault());

  // --- the page ---

  const controls = element("div", { className: "controls" },
    button("\u25C0", () => player.move(-1), "Frame back"), button("\u25B6\u275A\u275A", () => player.play(), "Play or stop"),
    button("\u25B6", () => player.move(1), "Frame forth"), button("\u2212", () => setZoom(0.8), "Smaller"),
    button("+", () => setZoom(1.25), "Larger"), counter, scale);
  const actions = element("div", { className: "actions" },
    button("Back", back, "Back to the video before"), button("Save, next", save, "Save and show the next video"));
  const ends = element("div", { className: "ends" },
    element("label", {}, unusable, element("kbd", { textContent: "x", "aria-hidden": "true" }), " not usable"),
    element("label", { className: "comment" }, "Comment ", comment), actions);
  root.append(svg,
    element("div", { className: "head" }, progress, state), note,
    element("div", { className: "body" },
      element("div", { className: "picture" }, element("div", { className: "film" }, frame), controls, sliders),
      element("div", { className: "answers" }, sheet, ends, help)));
  el.append(root);
  send({ do: "open" });

  return () => {
    gone = true;
    clearInterval(clock);
    resized.disconnect();
    player.close();
    model.off("msg:custom", onMessage);
    document.removeEventListener("visibilitychange", onVisible);
  };
}

export default { render };
