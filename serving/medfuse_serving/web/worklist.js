// The worklist: rows asked for page by page, of which only those in view are drawn.
// A custom element without a build step: <mf-worklist data-words="{...}" data-opened="ID"
// data-status="opened">. A study is opened by Gradio's button #worklist-open, which asks the element
// for the id that is `wanted`.

import { isKey } from "./keys.js";
import { UNATTENDED } from "./reader.js";

const PAGE = 100; // rows of one request
const SPARE = 4; // rows drawn above and below those in view
const HIDDEN_PX = 36; // a row's height while the list is folded away
const WAIT_MS = 150; // after a key in the filter, and while scrolling
const LOOK_MS = 15000; // how often it is looked for what others have done
const COLUMNS = ["label", "arrived", "modalities", "status", "reader"];
const MODALITIES = ["image", "note", "voice"];
const STATUSES = ["waiting", "opened", "read"];
const STYLE = new URL("worklist.css", import.meta.url);

/** Ask the server, by a body: a query may hold a name, which no address should. */
async function ask(what, query, headers = {}) {
  const response = await fetch(new URL(`../worklist/${what}`, import.meta.url), {
    method: "POST", headers: { "Content-Type": "application/json", ...headers }, body: JSON.stringify(query),
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.message);
  return answer;
}

function make(name, values = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(values)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

class Worklist extends HTMLElement {
  static observedAttributes = ["data-words", "data-opened", "data-status"];

  connectedCallback() {
    this.query ??= { text: "", modality: null, status: null, sort: "arrived", descending: false };
    this.pages ??= new Map();
    this.total ??= 0;
    this.active ??= 0;
    this.asked ??= 0;
    this.press = (event) => this.pressAnywhere(event);
    document.addEventListener("keydown", this.press);
    this.looking = setInterval(() => document.hidden || this.refresh(UNATTENDED), LOOK_MS);
    this.plan();
  }

  disconnectedCallback() {
    document.removeEventListener("keydown", this.press);
    clearInterval(this.looking);
    this.observer?.disconnect();
    this.said = undefined;
  }

  attributeChangedCallback() {
    this.plan();
  }

  /** Take up what has changed once all attributes are there. */
  plan() {
    if (this.planned) return;
    this.planned = true;
    queueMicrotask(() => {
      this.planned = false;
      if (!this.isConnected) return;
      if (this.dataset.words !== this.said) this.build();
      this.refresh();
    });
  }

  word(id, values = {}) {
    const text = this.words[id] ?? id;
    return text.replace(/\{(\w+)\}/g, (all, name) => values[name] ?? all);
  }

  count(number) {
    return number.toLocaleString(document.documentElement.lang || "en");
  }

  // What stands there ------------------------------------------------------------------------------

  build() {
    this.said = this.dataset.words;
    this.words = JSON.parse(this.said);
    this.root ??= this.attachShadow({ mode: "open" });
    this.observer?.disconnect();
    const choice = (name, values) => {
      const select = make("select", { "data-set": name }, new Option(this.word("any"), ""),
        ...values.map((value) => new Option(this.word(value), value)));
      select.value = this.query[name] ?? "";
      select.addEventListener("change", () => this.change({ [name]: select.value || null }));
      return make("label", {}, `${this.word(`by-${name}`)} `, select);
    };
    this.filter = make("input", { type: "search", maxlength: "100", autocomplete: "off", spellcheck: "false" });
    this.filter.value = this.query.text;
    this.filter.addEventListener("input", () => this.type());
    this.filter.addEventListener("keydown", (event) => this.pressFilter(event));
    const next = make("button", { type: "button", "aria-keyshortcuts": "Alt+N", class: "mf-next" }, this.word("next"));
    next.addEventListener("click", () => this.openNext());
    const tools = make("div", { class: "mf-tools", role: "group", "aria-label": this.word("tools") },
      make("label", {}, `${this.word("by-label")} `, this.filter),
      choice("modality", MODALITIES), choice("status", STATUSES), next);
    this.heads = new Map(COLUMNS.map((name) => {
      const button = make("button", { type: "button" }, this.word(`column-${name}`));
      button.addEventListener("click", () => this.sort(name));
      return [name, make("div", { role: "columnheader" }, button)];
    }));
    this.head = make("div", { role: "row", "aria-rowindex": "1", class: "mf-head" }, ...this.heads.values());
    this.body = make("div", { role: "rowgroup", class: "mf-body" });
    this.grid = make("div", {
      role: "grid", tabindex: "0", class: "mf-grid", "aria-label": this.word("keys"),
      "aria-colcount": String(COLUMNS.length),
    }, make("div", { role: "rowgroup", class: "mf-top" }, this.head), this.body);
    this.grid.addEventListener("keydown", (event) => this.pressGrid(event));
    this.grid.addEventListener("scroll", () => this.draw());
    this.grid.addEventListener("focus", () => this.tellActive());
    this.body.addEventListener("click", (event) => {
      const row = event.target.closest("[role=row]");
      if (row) this.choose(Number(row.dataset.index), true);
    });
    this.counted = make("p", { class: "mf-count" });
    this.status = make("p", { class: "mf-hidden", role: "status" });
    const details = make("details", { open: "" },
      make("summary", {}, make("h2", {}, this.word("title"))), tools, this.grid, this.counted);
    this.root.replaceChildren(make("link", { rel: "stylesheet", href: STYLE }), details, this.status);
    this.observer = new ResizeObserver(() => this.draw());
    this.observer.observe(this.grid);
  }

  /** The height of a row, which is the head's: both have more lines where the page is narrow. */
  get rowHeight() {
    return this.head.getBoundingClientRect().height || HIDDEN_PX;
  }

  get inView() {
    return Math.max(1, Math.floor((this.grid.clientHeight - this.rowHeight) / this.rowHeight));
  }

  row(index) {
    return this.pages.get(Math.floor(index / PAGE))?.[index % PAGE];
  }

  draw() {
    const height = this.rowHeight;
    const first = Math.max(0, Math.floor(this.grid.scrollTop / height) - SPARE);
    const last = Math.min(this.total, first + this.inView + 2 * SPARE + 2);
    this.body.style.height = `${this.total * height}px`;
    this.grid.setAttribute("aria-rowcount", String(this.total + 1));
    for (const [name, cell] of this.heads) {
      const sorted = name === this.query.sort;
      const way = this.query.descending ? "descending" : "ascending";
      if (sorted) cell.setAttribute("aria-sort", way);
      else cell.removeAttribute("aria-sort");
    }
    const rows = [];
    for (let index = first; index < last; index++) rows.push(this.drawRow(index, height));
    this.body.replaceChildren(...rows);
    if (this.total) this.grid.setAttribute("aria-activedescendant", `row-${this.active}`);
    else this.grid.removeAttribute("aria-activedescendant");
    this.counted.textContent = this.total ? this.word("count", { total: this.count(this.total) }) : this.word("none");
    this.fetchLater(first, last);
  }

  drawRow(index, height) {
    const row = this.row(index);
    const opened = row !== undefined && row.id === this.dataset.opened;
    const texts = row === undefined ? COLUMNS.map(() => "\u2026") : [
      row.label, this.time(row.arrived), row.modalities.map((m) => this.word(m)).join(", "),
      this.word(row.status), row.reader,
    ];
    const cells = texts.map((text, i) => {
      const cell = make("div", { role: "gridcell", "aria-colindex": String(i + 1) }, text);
      cell.title = text;
      return cell;
    });
    const element = make("div", {
      role: "row", id: `row-${index}`, "data-index": String(index), "aria-rowindex": String(index + 2),
      "aria-selected": String(opened), class: `mf-row${index === this.active ? " mf-active" : ""}`,
    }, ...cells);
    if (row !== undefined) element.dataset.status = row.status;
    element.style.transform = `translateY(${index * height}px)`;
    return element;
  }

  time(text) {
    const language = document.documentElement.lang || "en";
    return new Date(text).toLocaleString(language, { dateStyle: "medium", timeStyle: "short" });
  }

  // Rows from the server -----------------------------------------------------------------------------

  /** Ask for the rows between two that are not there, unless it is scrolled on. */
  fetchLater(first, last) {
    const missing = this.pagesOf(first, last).filter((page) => !this.pages.has(page));
    clearTimeout(this.fetching);
    if (missing.length) this.fetching = setTimeout(() => this.fetch(missing, this.asked), WAIT_MS);
  }

  pagesOf(first, last) {
    const pages = [];
    for (let page = Math.floor(first / PAGE); page * PAGE < last; page++) pages.push(page);
    return pages;
  }

  async fetch(pages, asked, headers) {
    try {
      const found = await Promise.all(pages.map((page) =>
        ask("rows", { ...this.query, offset: page * PAGE, limit: PAGE }, headers)));
      if (asked !== this.asked || !this.isConnected) return false; // something else is wanted by now
      found.forEach((answer, i) => this.pages.set(pages[i], answer.rows));
      this.total = found.at(-1).total;
      this.active = Math.max(0, Math.min(this.active, this.total - 1));
      this.draw();
      return true;
    } catch (error) {
      this.tell(String(error.message));
      return false;
    }
  }

  /** Look again at what is in view; the row that is active stays so where it moved a little. */
  async refresh(headers) {
    const here = this.row(this.active)?.id;
    const first = Math.floor(this.grid.scrollTop / this.rowHeight);
    const pages = this.pagesOf(first, first + this.inView + 1);
    const kept = this.pages;
    this.pages = new Map(kept);
    if (!(await this.fetch(pages, ++this.asked, headers))) return;
    for (const page of kept.keys()) if (!pages.includes(page)) this.pages.delete(page);
    for (const page of pages) {
      const at = (this.pages.get(page) ?? []).findIndex((row) => row.id === here);
      if (here !== undefined && at >= 0) this.active = page * PAGE + at;
    }
    this.draw();
  }

  /** Ask for other rows, from their beginning. */
  async change(query) {
    Object.assign(this.query, query);
    this.pages = new Map();
    this.active = 0;
    this.grid.scrollTop = 0;
    if (await this.fetch([0], ++this.asked)) this.tell(this.counted.textContent);
  }

  type() {
    clearTimeout(this.typing);
    this.typing = setTimeout(() => this.change({ text: this.filter.value }), WAIT_MS);
  }

  sort(name) {
    this.change({ sort: name, descending: name === this.query.sort && !this.query.descending });
  }

  // Choosing and opening -----------------------------------------------------------------------------

  choose(index, open = false) {
    if (!this.total) return;
    this.active = Math.min(Math.max(index, 0), this.total - 1);
    const height = this.rowHeight;
    const top = this.active * height;
    const seen = this.grid.clientHeight - height; // the head stays in place
    if (top < this.grid.scrollTop) this.grid.scrollTop = top;
    if (top + height > this.grid.scrollTop + seen) this.grid.scrollTop = top + height - seen;
    this.draw();
    if (open && this.row(this.active)) this.open(this.row(this.active).id);
  }

  open(id) {
    this.wanted = id;
    document.querySelector("#worklist-open").click();
  }

  /** Open the next study that waits, in the order that is shown. */
  async openNext() {
    try {
      const { row, index } = await ask("next", { ...this.query, after: this.dataset.opened || null });
      if (row === null) return this.tell(this.word("no-next"));
      const shown = !this.query.status || this.query.status === row.status;
      if (shown && index < this.total) {
        this.choose(index);
        await this.refresh();
      }
      this.open(row.id); // the page tells what it is then
    } catch (error) {
      this.tell(String(error.message));
    }
  }

  // Keys and words -----------------------------------------------------------------------------------

  pressAnywhere(event) {
    if (!isKey(event, "N")) return;
    event.preventDefault();
    this.openNext();
  }

  pressGrid(event) {
    if (event.target !== this.grid || event.ctrlKey || event.metaKey || event.altKey) return;
    const steps = {
      ArrowDown: this.active + 1, ArrowUp: this.active - 1, Home: 0, End: this.total - 1,
      PageDown: this.active + this.inView, PageUp: this.active - this.inView,
    };
    if (event.key in steps) {
      this.choose(steps[event.key]);
      this.tellActive();
    } else if (event.key === "Enter") this.choose(this.active, true);
    else if (event.key === "/") this.filter.focus();
    else return;
    event.preventDefault();
  }

  pressFilter(event) {
    if (event.key !== "Enter" && event.key !== "ArrowDown" && event.key !== "Escape") return;
    event.preventDefault();
    if (event.key === "Escape" && this.filter.value) {
      this.filter.value = "";
      this.type();
    } else {
      this.grid.focus();
    }
  }

  tellActive() {
    const row = this.row(this.active);
    if (row) this.tellRow(row, this.active, this.total);
  }

  tellRow(row, index, total) {
    this.tell(this.word("place", {
      number: this.count(index + 1), total: this.count(total), label: row.label, status: this.word(row.status),
    }));
  }

  tell(words) {
    this.status.textContent = words;
  }
}

customElements.define("mf-worklist", Worklist);
