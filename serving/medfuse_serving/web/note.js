// The note's text box: whatever changes what stands in it is told, by a button that is never seen.
// Gradio tells of what is typed, and not of what is pasted, dropped, cut, deleted or undone.
// Told once is enough until something else is asked for: were each key told, the last of a fast
// hand's could reach the server after the press on Predict, whose answer would then be dropped.

let told = false;

const button = () => document.getElementById("note-changed");

document.addEventListener("input", ({ target }) => {
  if (told || !target.closest("#note-text")) return;
  button().click();
  told = true;
});

for (const asked of ["click", "focusout"]) {
  document.addEventListener(asked, ({ target }) => {
    if (target !== button()) told = false;
  }, { capture: true });
}
