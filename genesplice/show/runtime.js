"use strict";
/* Draws the figures that Python made and, for explorers, patches them. Nothing here computes a
   value: every number and every text comes from the page's JSON, and text is set as text. */
(() => {
  const NARROW = 600;
  const CONFIG = { displaylogo: false, responsive: false, showSendToCloud: false };

  // ---- numbers -------------------------------------------------------------------------------

  const TYPES = { i1: Int8Array, i2: Int16Array, i4: Int32Array, f4: Float32Array, f8: Float64Array };
  const MISSING = { i1: -128, i2: -32768, i4: -2147483648 };

  function decode(packed) {
    const text = atob(packed.data);
    const bytes = Uint8Array.from(text, (letter) => letter.charCodeAt(0));
    const raw = new TYPES[packed.type](bytes.buffer);
    if (!packed.scale) return raw;
    const missing = MISSING[packed.type];
    return Float64Array.from(raw, (value) => (value === missing ? NaN : value / packed.scale));
  }

  /* The value of a binding for a combination of options: what Binding.value does in Python. */
  function valueOf(binding, index) {
    if (binding.values) return binding.values[index];
    if (!binding.numbers) {
      let end = 0;
      binding.numbers = decode(binding);
      binding.ends = [0, ...binding.lengths.map((length) => (end += length))];
    }
    const row = binding.numbers.slice(binding.ends[index], binding.ends[index + 1]);
    return binding.palette ? Array.from(row, (code) => binding.palette[code]) : row;
  }

  function setPath(target, path, value) {
    const keys = path.split(/[.[\]]+/).filter((key) => key !== "");
    const last = keys.pop();
    for (const [position, key] of keys.entries()) {
      const following = position + 1 < keys.length ? keys[position + 1] : last;
      if (target[key] === undefined || target[key] === null) target[key] = /^\d+$/.test(following) ? [] : {};
      target = target[key];
    }
    if (value === undefined) delete target[last];
    else target[last] = value;
  }

  function getPath(target, path) {
    for (const key of path.split(/[.[\]]+/)) {
      if (key !== "" && target !== undefined && target !== null) target = target[key];
    }
    return target;
  }

  const asArray = (value) => (ArrayBuffer.isView(value) ? Array.from(value) : value);

  // ---- a figure ------------------------------------------------------------------------------

  class Figure {
    constructor(root) {
      const spec = JSON.parse(document.getElementById(`${root.id}-data`).textContent);
      this.root = root;
      this.canvas = root.querySelector(".canvas");
      this.data = spec.data;
      this.layout = spec.layout;
      this.explorer = spec.explorer;
      this.drawn = false;
      this.queued = false;
      this.state = {};
      this.setters = {};
      if (this.explorer) this.prepare();
    }

    prepare() {
      this.controls = Object.fromEntries(this.explorer.controls.map((control) => [control.name, control]));
      this.wide = {};
      for (const path of Object.keys(this.explorer.narrow)) this.wide[path] = getPath(this.holder(path), path);
      const bar = this.root.querySelector(".controls");
      for (const control of this.explorer.controls) {
        this.state[control.name] = control.start;
        const make = { select: makeSelect, slider: makeSlider, toggle: makeToggle }[control.kind];
        const { element, show } = make(control, `${this.root.id}-${control.name}`, (position) =>
          this.set(control.name, position),
        );
        this.setters[control.name] = show;
        bar.append(element);
      }
      if (this.explorer.note) bar.append(make("p", { className: "note", textContent: this.explorer.note }));
    }

    /* `data[1].marker.size` is a property of a trace, anything else one of the layout. */
    holder(path) {
      return path.startsWith("data[") ? this : this.layout;
    }

    set(name, position) {
      if (this.state[name] === position) return;
      this.state[name] = position;
      this.setters[name](position);
      for (const binding of this.explorer.bindings) {
        if (!binding.controls.includes(name)) continue;
        let index = 0;
        for (const control of binding.controls) {
          index = index * this.controls[control].options.length + this.state[control];
        }
        const value = valueOf(binding, index);
        for (const path of binding.paths) {
          const holder = this.holder(path);
          setPath(holder, path, holder === this ? value : asArray(value));
        }
      }
      this.root.dataset.state = JSON.stringify(this.state);
      this.redraw();
    }

    fit(width) {
      const narrow = width < NARROW;
      if (this.explorer && narrow !== this.narrow) {
        for (const [path, value] of Object.entries(this.explorer.narrow)) {
          setPath(this.holder(path), path, structuredClone(narrow ? value : this.wide[path]));
        }
      }
      this.narrow = narrow;
      this.layout.width = Math.floor(width);
      this.canvas.style.height = `${this.layout.height}px`;
    }

    draw() {
      if (this.drawn) return;
      this.drawn = true;
      this.fit(this.canvas.clientWidth);
      Plotly.newPlot(this.canvas, this.data, this.layout, CONFIG);
      this.root.classList.add("drawn");
      for (const click of this.explorer ? this.explorer.clicks : []) this.listen(click);
    }

    listen({ trace, control }) {
      this.canvas.on("plotly_click", (event) => {
        const point = event.points.find((one) => one.curveNumber === trace);
        if (!point || point.customdata === undefined) return;
        const named = Array.isArray(point.customdata) ? point.customdata[0] : point.customdata;
        const position = this.controls[control].options.indexOf(String(named));
        if (position >= 0) this.set(control, position);
      });
    }

    redraw() {
      if (!this.drawn || this.queued) return;
      this.queued = true;
      requestAnimationFrame(() => {
        this.queued = false;
        Plotly.react(this.canvas, this.data, this.layout, CONFIG);
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

  function makeToggle(control, id, set) {
    const box = make("input", { type: "checkbox", id, checked: control.start === 1 });
    box.addEventListener("change", () => set(box.checked ? 1 : 0));
    const label = make("label", { htmlFor: id, textContent: control.label });
    return {
      element: make("div", { className: "control toggle" }, box, label),
      show: (position) => (box.checked = position === 1),
    };
  }

  function makeSlider(control, id, set) {
    const last = control.options.length - 1;
    const range = make("input", { type: "range", id, min: 0, max: last, step: 1 });
    const shown = make("output", { htmlFor: id });
    const show = (position) => {
      range.value = position;
      shown.textContent = control.options[position];
      range.setAttribute("aria-valuetext", control.options[position]);
    };
    range.addEventListener("input", () => set(Number(range.value)));
    show(control.start);
    const label = make("label", { htmlFor: id, textContent: control.label });
    return { element: make("div", { className: "control slider" }, label, range, shown), show };
  }

  /* A text field with the browser's own list of suggestions, and a button to either side. */
  function makeSelect(control, id, set) {
    const { label: text, options, start } = control;
    const folded = options.map((option) => option.toLowerCase());
    let position = start;
    const label = make("label", { htmlFor: id, textContent: text });
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
    const find = (typed) => {
      const query = typed.trim().toLowerCase();
      if (options.includes(typed)) return options.indexOf(typed);
      if (query === "") return position;
      const first = folded.findIndex((option) => option.startsWith(query));
      return first >= 0 ? first : folded.findIndex((option) => option.includes(query));
    };
    const settle = () => {
      const found = find(field.value);
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
    return { element: make("div", { className: "control select" }, label, box), show };
  }

  // ---- the page ------------------------------------------------------------------------------

  const figures = [...document.querySelectorAll("figure.plot")].map((root) => new Figure(root));
  const byRoot = new Map(figures.map((figure) => [figure.root, figure]));

  const watcher = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        watcher.unobserve(entry.target);
        byRoot.get(entry.target).draw();
      }
    },
    { rootMargin: "800px 0px" },
  );
  for (const figure of figures) watcher.observe(figure.root);

  let waiting = 0;
  addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => figures.forEach((figure) => figure.resize()), 120);
  });

  const PAPER = 680;
  addEventListener("beforeprint", () => figures.forEach((figure) => {
    figure.draw();
    figure.resize(PAPER);
  }));
  addEventListener("afterprint", () => figures.forEach((figure) => figure.resize()));

  const toggle = document.getElementById("toggle-code");
  const folds = [...document.querySelectorAll("details.code")];
  if (toggle && folds.length) {
    toggle.hidden = false;
    toggle.addEventListener("click", () => {
      const open = toggle.getAttribute("aria-pressed") !== "true";
      toggle.setAttribute("aria-pressed", String(open));
      toggle.textContent = open ? "Hide code" : "Show code";
      for (const fold of folds) fold.open = open;
    });
  }

  const links = [...document.querySelectorAll("nav.contents a")];
  const sections = links.map((link) => document.getElementById(decodeURIComponent(link.hash.slice(1))));
  const here = () => {
    const passed = sections.filter((section) => section && section.getBoundingClientRect().top < 120);
    links.forEach((link, at) => {
      if (sections[at] === passed.at(-1)) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    });
  };
  addEventListener("scroll", here, { passive: true });
  here();

  const contents = document.querySelector("nav.contents details");
  if (contents && innerWidth < 1088) contents.open = false;

  document.documentElement.classList.add("ready");
  window.genesplice = { figures, drawAll: () => figures.forEach((figure) => figure.draw()) };
})();
