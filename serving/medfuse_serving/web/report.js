// The report's key: Alt and R do what its button does, bring up what comes of it, and bring the
// focus to its link.

import { isKey } from "./keys.js";

const find = (id) => document.getElementById(id);

/** Tell assistive technology of the key; Gradio makes the button, and knows no such attribute. */
function tellKey() {
  find("report-ask")?.setAttribute("aria-keyshortcuts", "Alt+R");
}

/** Bring up the link or the refusal once it is there. */
function bringUp() {
  const place = find("report-place");
  const before = place.innerHTML;
  const seen = new MutationObserver(() => {
    if (!place.querySelector("a, [role=alert]") || place.innerHTML === before) return;
    seen.disconnect();
    place.scrollIntoView({ block: "nearest" });
    place.querySelector("a")?.focus({ preventScroll: true });
  });
  seen.observe(place, { childList: true, subtree: true });
}

new MutationObserver(tellKey).observe(document, { childList: true, subtree: true });
tellKey();

document.addEventListener("keydown", (event) => {
  if (!isKey(event, "R")) return;
  event.preventDefault();
  bringUp();
  find("report-ask")?.click(); // it is not seen while there is no answer
});
