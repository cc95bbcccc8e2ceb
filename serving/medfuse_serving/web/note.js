// The note's text box: whatever changes what stands in it is told, by a button that is never seen.
// Gradio tells of what is typed, and not of what is pasted, dropped, cut, deleted or undone.
// Told once is enough until something else is asked for. Each telling has a number, which is sent
// with a press on Predict, too: one that reaches the server after the press that followed it would
// otherwise take the answer away.

globalThis.medfuseNote = { changes: 0 };
let told = false;

const button = () => document.getElementById("note-changed");

document.addEventListener("input", ({ target }) => {
  if (told || !target.closest("#note-text")) return;
  medfuseNote.changes += 1;
  button().click();
  told = true;
});

for (const asked of ["click", "focusout"]) {
  document.addEventListener(asked, ({ target }) => {
    if (target !== button()) told = false;
  }, { capture: true });
}
