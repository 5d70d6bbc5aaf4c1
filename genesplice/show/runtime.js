"use strict";
/* Draws the figures that Python made and, for explorers, patches them. Nothing here computes a
   value: every number and every text comes from the page's JSON, and text is set as text. */
(() => {
  const NARROW = 600;
  const PAPER = 680;
  const CONFIG = { displaylogo: false, responsive: false, showSendToCloud: false };

  const keysOf = (path) => path.split(/[.[\]]+/).filter(Boolean);
  const getPath = (target, path) => keysOf(path).reduce((inside, key) => inside?.[key], target);

  function setPath(target, path, value) {
    const keys = keysOf(path);
    const last = keys.pop();
    for (const key of keys) target = target[key] ??= {};
    target[last] = value;
  }

  // ---- a figure ------------------------------------------------------------------------------

  class Figure {
    constructor(root) {
      const spec = JSON.parse(document.getElementById(`${root.id}-data`).textContent);
      const nothing = { controls: [], bindings: [], clicks: [], narrow: {}, note: "" };
      this.root = root;
      this.canvas = root.querySelector(".canvas");
      this.data = spec.data;
      this.layout = spec.layout;
      this.explorer = spec.explorer ?? nothing;
      this.drawn = this.queued = false;
      this.state = {};
      this.setters = {};
      this.controls = Object.fromEntries(this.explorer.controls.map((control) => [control.name, control]));
      this.wide = Object.keys(this.explorer.narrow).map((path) => [path, getPath(this.holder(path), path)]);
      const bar = root.querySelector(".controls");
      for (const control of this.explorer.controls) {
        const name = control.name;
        this.state[name] = control.start;
        const kind = { select: makeSelect, slider: makeSlider, toggle: makeToggle }[control.kind];
        const { element, show } = kind(control, `${root.id}-${name}`, (position) => this.set(name, position));
        this.setters[name] = show;
        bar.append(element);
      }
      if (this.explorer.note) bar.append(make("p", { className: "note", textContent: this.explorer.note }));
      this.fit(this.canvas.clientWidth); // its height, before it is drawn: nothing moves then
    }

    /* `data[1].marker.size` is a property of a trace, anything else one of the layout. */
    holder(path) {
      return path.startsWith("data[") ? this : this.layout;
    }

    set(name, position) {
      if (this.state[name] === position) return;
      this.state[name] = position;
      this.setters[name](position);
      for (const { paths, controls, rows, palette } of this.explorer.bindings) {
        if (!controls.includes(name)) continue;
        const step = (index, control) => index * this.controls[control].options.length + this.state[control];
        const found = rows[controls.reduce(step, 0)];
        const row = palette ? Array.from(found, (digit) => palette[digit]) : found;
        for (const path of paths) setPath(this.holder(path), path, row);
      }
      this.root.dataset.state = JSON.stringify(this.state);
      if (!this.drawn || this.queued) return;
      this.queued = true;
      requestAnimationFrame(() => {
        this.queued = false;
        Plotly.react(this.canvas, this.data, this.layout, CONFIG);
      });
    }

    fit(width) {
      const narrow = width < NARROW;
      if (narrow !== this.narrow) {
        const values = narrow ? Object.entries(this.explorer.narrow) : this.wide;
        for (const [path, value] of values) setPath(this.holder(path), path, structuredClone(value));
      }
      this.narrow = narrow;
      const heights = (this.layout.meta?.heights ?? []).filter(([from]) => from <= width);
      if (heights.length) this.layout.height = heights.at(-1)[1];
      this.layout.width = Math.floor(width);
      this.canvas.style.height = `${this.layout.height}px`;
    }

    draw() {
      if (this.drawn) return;
      this.drawn = true;
      this.fit(this.canvas.clientWidth);
      Plotly.newPlot(this.canvas, this.data, this.layout, CONFIG);
      this.root.classList.add("drawn");
      this.canvas.on("plotly_click", (event) => {
        for (const { trace, control } of this.explorer.clicks) {
          const named = event.points.find((one) => one.curveNumber === trace)?.customdata;
          const option = String(Array.isArray(named) ? named[0] : named);
          const position = this.controls[control].options.indexOf(option);
          if (position >= 0) this.set(control, position);
        }
      });
    }

    resize(width = this.canvas.clientWidth) {
      if (!this.drawn || Math.floor(width) === this.layout.width || width < 1) return;
      this.fit(width);
      Plotly.react(this.canvas, this.data, this.layout, CONFIG);
    }
  }

  // ---- controls ------------------------------------------------------------------------------

  function make(tag, properties = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (name in element) element[name] = value;
      else element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  }

  const labelOf = (control, id) => make("label", { htmlFor: id, textContent: control.label });

  function makeToggle(control, id, set) {
    const box = make("input", { type: "checkbox", id, checked: control.start === 1 });
    box.addEventListener("change", () => set(box.checked ? 1 : 0));
    const element = make("div", { className: "control toggle" }, box, labelOf(control, id));
    return { element, show: (position) => (box.checked = position === 1) };
  }

  function makeSlider(control, id, set) {
    const range = make("input", { type: "range", id, min: 0, max: control.options.length - 1, step: 1 });
    const shown = make("output", { htmlFor: id });
    const show = (position) => {
      range.value = position;
      shown.textContent = control.options[position];
      range.setAttribute("aria-valuetext", control.options[position]);
    };
    range.addEventListener("input", () => set(Number(range.value)));
    show(control.start);
    return { element: make("div", { className: "control slider" }, labelOf(control, id), range, shown), show };
  }

  /* A text field with the browser's own list of suggestions, and a button to either side. */
  function makeSelect(control, id, set) {
    const { label: text, options, start } = control;
    const folded = options.map((option) => option.toLowerCase());
    let position = start;
    const field = make("input", { type: "text", id, autocomplete: "off", spellcheck: false });
    const list = make("datalist", { id: `${id}-list` }, ...options.map((value) => make("option", { value })));
    field.setAttribute("list", list.id);
    const before = make("button", { type: "button", textContent: "‹", "aria-label": `previous: ${text}` });
    const after = make("button", { type: "button", textContent: "›", "aria-label": `next: ${text}` });

    const show = (now) => {
      position = now;
      field.value = field.placeholder = options[now];
      before.disabled = now === 0;
      after.disabled = now === options.length - 1;
    };
    const choose = (now) => {
      show(now);
      set(now);
    };
    /* What was typed: an option, else the first that begins with it, else one that has it inside. */
    const settle = () => {
      const query = field.value.trim().toLowerCase();
      const exact = options.indexOf(field.value);
      const first = folded.findIndex((option) => option.startsWith(query));
      const inside = folded.findIndex((option) => option.includes(query));
      const found = query === "" ? -1 : [exact, first, inside].find((one) => one >= 0) ?? -1;
      choose(found < 0 ? position : found);
    };

    /* An empty field makes the browser offer every option. */
    field.addEventListener("focus", () => (field.value = ""));
    field.addEventListener("input", () => options.includes(field.value) && choose(options.indexOf(field.value)));
    field.addEventListener("change", settle);
    field.addEventListener("blur", () => show(position));
    field.addEventListener("keydown", (event) => {
      if (event.key === "Enter") settle();
      if (event.key === "Escape") show(position);
    });
    before.addEventListener("click", () => choose(position - 1));
    after.addEventListener("click", () => choose(position + 1));
    show(start);
    const box = make("div", { className: "combobox" }, before, field, after, list);
    return { element: make("div", { className: "control select" }, labelOf(control, id), box), show };
  }

  // ---- the page ------------------------------------------------------------------------------

  const figures = [...document.querySelectorAll("figure.plot")].map((root) => new Figure(root));
  const byRoot = new Map(figures.map((figure) => [figure.root, figure]));
  const resizeAll = (width) => figures.forEach((figure) => figure.resize(width));
  const drawAll = () => figures.forEach((figure) => figure.draw());

  const drawSeen = (entries) => entries.forEach((one) => one.isIntersecting && byRoot.get(one.target).draw());
  const watcher = new IntersectionObserver(drawSeen, { rootMargin: "800px 0px" });
  figures.forEach((figure) => watcher.observe(figure.root));

  let waiting = 0;
  addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(resizeAll, 120);
  });
  addEventListener("beforeprint", () => {
    drawAll();
    resizeAll(PAPER);
  });
  addEventListener("afterprint", () => resizeAll());

  const toggle = document.getElementById("toggle-code");
  const folds = [...document.querySelectorAll("details.code")];
  toggle.hidden = folds.length === 0;
  toggle.addEventListener("click", () => {
    const open = toggle.getAttribute("aria-pressed") !== "true";
    toggle.setAttribute("aria-pressed", String(open));
    toggle.textContent = open ? "Hide code" : "Show code";
    for (const fold of folds) fold.open = open;
  });

  const links = [...document.querySelectorAll("nav.contents li a")];
  const sections = links.map((link) => document.getElementById(decodeURIComponent(link.hash.slice(1))));
  const here = () => {
    const passed = sections.filter((section) => section?.getBoundingClientRect().top < 120);
    links.forEach((link, at) => (link.ariaCurrent = sections[at] === passed.at(-1) ? "true" : null));
  };
  addEventListener("scroll", here, { passive: true });
  here();

  const contents = document.querySelector("nav.contents details");
  if (contents && innerWidth < 1088) contents.open = false;

  document.documentElement.classList.add("ready");
  window.genesplice = { figures, drawAll };
})();
