// Linked evidence: what has the same `data-evidence` (an outline, a group of words, a span of the
// spectrogram, a row of the table) is marked together, shown from its row, and played if it sounds.
// All listeners are the document's, so that they outlive what Gradio makes anew.

import { fetchURL } from "./pieces.js";

const ROWS = ".mf-pieces";
const SPOKEN = ".mf-spoken-words > button"; // the words of a dictation

// Marks ---------------------------------------------------------------------------------------

let shown = null; // what "Show" or a key left a mark on: its name, and whose table it is of
let pointer = null; // where it was last
let rested = null; // where it was as something was shown: what scrolls under it is not pointed at

const table = () => document.querySelector(ROWS)?.dataset.shelf;
const viewer = () => document.querySelector("mf-viewer:not([data-prior])");
const row = (name) => document.querySelector(`${ROWS} [data-evidence="${name}"]`);
const nameOf = (target) => target.closest?.("[data-evidence]")?.dataset.evidence ?? null;

/** Mark one piece wherever it is; of null, what was shown last. */
function mark(name) {
  name ??= shown?.table === table() ? (shown?.name ?? null) : null;
  for (const element of document.querySelectorAll(".mf-marked")) element.classList.remove("mf-marked");
  if (name) {
    for (const element of document.querySelectorAll(`[data-evidence="${name}"]`)) {
      element.classList.add("mf-marked");
    }
  }
  viewer()?.mark?.(name);
}

for (const moved of ["pointermove", "pointerdown"]) {
  document.addEventListener(moved, ({ clientX, clientY }) => {
    pointer = `${clientX} ${clientY}`;
  }, true);
}
document.addEventListener("pointerover", ({ target, clientX, clientY }) => {
  if (rested === `${clientX} ${clientY}`) return;
  rested = null;
  mark(nameOf(target));
});
document.addEventListener("focusin", ({ target }) => {
  mark(nameOf(target));
  if (target.matches?.(SPOKEN)) stopTabAt(target);
});
document.addEventListener("focusout", () => mark(null));
document.addEventListener("mf-point", ({ detail }) => {
  if (detail.keep) {
    shown = { name: detail.name, table: table() };
    say(detail.name);
  }
  mark(detail.name);
});
document.addEventListener("mf-choose", ({ detail }) => goToRow(detail.name));

// Going there ---------------------------------------------------------------------------------

function say(name) {
  const place = document.querySelector(".mf-spoken");
  if (place) place.textContent = row(name)?.dataset.said ?? "";
}

/** Open the table at a piece's row. */
function goToRow(name) {
  const found = row(name);
  if (!found) return;
  found.closest("details").open = true;
  const button = found.querySelector("button");
  button.scrollIntoView({ block: "center" });
  button.focus({ preventScroll: true });
}

/** Bring up what a row is of, with the maps on. */
function show(name, frame) {
  const switched = document.querySelector("#overlays input");
  if (switched && !switched.checked) switched.click();
  shown = { name, table: table() };
  rested = pointer;
  if (frame !== undefined) {
    viewer()?.turn(Number(frame));
    viewer()?.scrollIntoView({ block: "nearest" });
  } else {
    document.querySelector(`.mf-map [data-evidence="${name}"]`)?.scrollIntoView({ block: "nearest" });
  }
  mark(name);
  say(name);
}

// Sound ---------------------------------------------------------------------------------------

let playing = null; // the player, where it stops, and what began it

const plays = (element) => playing?.span === element.dataset.play && playing.sound === element.dataset.sound;

/** Find the player of what an element plays: the dictation's, or the recording's that is seen. */
function playerOf(element) {
  if (element.dataset.sound === "dictation") return document.querySelector(".mf-dictated audio");
  return [...document.querySelectorAll("#voice audio, #voice-map audio")].find((one) => one.checkVisibility());
}

/** Fetch a dictation's sound once it is wanted. */
async function fill(audio) {
  if (!audio?.dataset.shelf || "asked" in audio.dataset) return;
  audio.dataset.asked = "";
  try {
    audio.src = await fetchURL(audio.dataset.shelf, 0);
  } catch (error) {
    if (playing?.audio === audio) stop();
    const said = document.createElement("p");
    Object.assign(said, { className: "mf-problem", role: "alert", lang: "en", textContent: error.message });
    audio.replaceWith(said);
  }
}

/** Play a span of a recording, or stop it where it is playing. */
function play(element) {
  const again = plays(element);
  stop();
  if (again) return;
  const [start, end] = element.dataset.play.split(" ").map(Number);
  const audio = playerOf(element);
  if (!audio) return;
  fill(audio);
  const { play: span, sound } = element.dataset;
  const own = { audio, start, end, span, sound, begun: false };
  playing = own;
  press(true);
  audio.addEventListener("timeupdate", watch); // a hidden page gets no animation frames
  audio.addEventListener("seeking", leave);
  const begin = () => {
    if (playing !== own) return;
    audio.currentTime = start;
    audio.play().then(
      () => {
        own.begun = true;
        follow();
      },
      () => playing === own && stop(),
    );
  };
  if (audio.readyState) begin();
  else audio.addEventListener("loadedmetadata", begin, { once: true });
}

function follow() {
  watch();
  if (playing) requestAnimationFrame(follow);
}

/** Stop at the span's end. */
function watch() {
  if (!playing) return;
  const { audio, end, begun } = playing;
  if (audio.seeking) leave(); // a hand may put it beyond the end, and the event comes later
  else if (!audio.isConnected || (begun && audio.paused)) stop();
  else if (audio.currentTime >= end) {
    stop();
    audio.currentTime = end;
  }
}

/** Let go of a player that a hand has put elsewhere. */
function leave() {
  if (playing && Math.abs(playing.audio.currentTime - playing.start) > 0.01) letGo();
}

function letGo() {
  playing.audio.removeEventListener("timeupdate", watch);
  playing.audio.removeEventListener("seeking", leave);
  press(false);
  playing = null;
}

function stop() {
  if (!playing) return;
  playing.audio.pause();
  letGo();
}

function press(on) {
  for (const element of document.querySelectorAll("[data-play]")) {
    element.setAttribute("aria-pressed", String(on && plays(element)));
  }
}

document.addEventListener("toggle", ({ target }) => {
  if (target.matches(".mf-dictated[open]")) fill(target.querySelector("audio"));
}, true); // it does not bubble

// Hands and keys ------------------------------------------------------------------------------

/** Let Tab stop at one word of a dictation alone; arrows go on from there. */
function stopTabAt(word) {
  for (const other of word.parentElement.children) other.tabIndex = other === word ? 0 : -1;
}

/** Go to another word by its key. */
function goOn(event) {
  const word = event.target;
  const words = [...word.parentElement.children];
  const at = words.indexOf(word);
  const steps = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: words.length - 1 };
  if (!(event.key in steps) || event.altKey || event.ctrlKey || event.metaKey) return;
  words[steps[event.key]]?.focus();
  event.preventDefault();
}

document.addEventListener("click", (event) => {
  const target = event.target.closest?.("[data-play], [data-show], a[data-evidence]");
  if (!target) return;
  if (target.dataset.play) play(target);
  else if (target.dataset.show) show(target.dataset.show, target.dataset.frame);
  else goToRow(target.dataset.evidence);
  event.preventDefault();
});

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") {
    shown = null;
    mark(null);
  }
  if (event.target.matches?.(SPOKEN)) goOn(event);
  // A button of the drawing has no click of its own by key.
  if (event.target.matches?.("rect[data-play]") && [" ", "Enter"].includes(event.key)) {
    play(event.target);
    event.preventDefault();
  }
});
