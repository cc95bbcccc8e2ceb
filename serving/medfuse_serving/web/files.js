// What is put into a box of the page is sent, and the box emptied at once: Gradio would add what is
// put there next to it, and send both.

globalThis.medfuseFiles = {
  kept: {}, // by box, what was put there and is not sent yet

  /** Keep what stands in a box; give what is to stand there. */
  keep(box, value) {
    (this.kept[box] ??= []).push(value);
    return [null];
  },

  /** Put what was kept before the values of what sends it. */
  send(box, values) {
    return values.with(0, this.kept[box].shift());
  },
};
