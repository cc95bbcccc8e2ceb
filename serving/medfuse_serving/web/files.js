// What is put into a box of the page is sent, and the box emptied at once: Gradio would add what is
// put there next to it, and send both. It is sent as of the study, and the note, beside which it was
// chosen: another may be there once it has arrived.

globalThis.medfuseFiles = {
  chosen: {}, // by box or button: of which study, and how often the note was changed by then
  kept: {}, // by box, what was put there and is not sent yet

  /** Keep beside what something is chosen; not so of files of which one is too large to be sent. */
  choose(id, files = []) {
    const most = globalThis.gradio_config?.max_file_size ?? Infinity;
    if ([...files].some((file) => file.size > most)) return;
    const laid = document.querySelector("#laid textarea, #laid input")?.value;
    if (laid) (this.chosen[id] ??= []).push([laid, String(medfuseNote.changes)]);
  },

  /** Keep what stands in a box; give what is to stand there. */
  keep(id, value) {
    (this.kept[id] ??= []).push(value);
    return [null];
  },

  /** Put what was kept first of the values of what sends it, and of which study it is last. */
  send(id, values) {
    const [laid] = this.chosen[id]?.shift() ?? [values.at(-1)];
    return values.with(0, this.kept[id].shift()).with(-1, laid);
  },

  /** Put how often the note had been changed first of the values of a note's file, and the same. */
  note(id, values) {
    const [laid, changes] = this.chosen[id]?.shift() ?? [values.at(-1), String(medfuseNote.changes)];
    return values.with(0, changes).with(-1, laid);
  },
};

{
  const BOXES = "#images, #prior-images, #recording";

  /** Find by what a file is taken: its box, or the button after the input. */
  const takes = (target) => target.closest?.(BOXES)?.id ?? target.nextElementSibling?.id;

  document.addEventListener("change", ({ target }) => {
    if (target.type === "file" && target.files.length) medfuseFiles.choose(takes(target), target.files);
  }, { capture: true });
  document.addEventListener("drop", ({ target, dataTransfer }) => {
    if (dataTransfer?.files.length) medfuseFiles.choose(takes(target), dataTransfer.files);
  }, { capture: true });
  document.addEventListener("click", ({ target }) => {
    if (target.closest?.("#microphone .record-button")) medfuseFiles.choose("microphone");
  }, { capture: true });
}
