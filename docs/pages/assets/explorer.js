// The explorer page. Its data, two scripts a picture, are made by docs/site_tools/explorer.py: what the model did, and
// what the same model does without offsets.
//
// All that the reader has chosen is in `view`. It is also the address of the page (after the #), and it is written into
// attributes (data-picture, data-block, data-head, data-window, data-window-head, data-offsets, data-query), for whoever
// automates the page.
(() => {
  "use strict";
  const root = document.querySelector(".explorer");
  if (!root) return;

  const DATA = new URL("../explorer/", document.currentScript.src);
  const WIDTH = 480; // of a picture, in the units of the drawings
  const KINDS = {
    deformable: { letter: "D", name: "deformable attention" },
    window: { letter: "W", name: "window attention" },
    shifted_window: { letter: "S", name: "shifted-window attention" },
    neighborhood: { letter: "N", name: "neighborhood attention" },
  };
  const OBJECTS = 6; // of a detector's answer are listed
  const RESTS = 250; // milliseconds after which a finger that rested moves the query in any direction
  const ARROWS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

  const pictures = JSON.parse(root.dataset.pictures); // {name, title, task: "classifier", "detector", "segmentor"}
  const view = {
    picture: pictures[0].name,
    block: "first", // of the deformable ones: a path in the model, or "first", "last"
    head: "mean", // or a number, or "sharpest": the one with the largest single share
    window: "first", // the same for the local ones
    windowHead: "mean",
    at: [0.5, 0.5], // the query, (y, x) as shares of the picture's height and width
    offsets: true, // or the points stay on the regular grid
    pixels: false, // show what a classifier is given
    answer: false, // show a detector's boxes, a segmentor's classes
  };
  let data = null; // of view.picture: what the model did
  let run = null; // the same, or what it does without offsets
  let held = false; // the query does not follow the mouse

  // --- small helpers ---------------------------------------------------------------------------------------------

  const { html, svg, set } = window.minidatElements;
  const percent = (share) => (share < 0.0005 ? "0 %" : `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`);
  const rgb = (color) => `rgb(${color.map(Math.round).join(" ")})`;
  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
  const count = (n, noun) => `${n} ${noun}${n === 1 ? "" : "s"}`;

  /** Strength in [0, 1) of so many even shares: 0.25 for 1, 0.57 for 4, 0.84 for 16. */
  const strength = (multiple) => multiple / (multiple + 3);

  /** A color on straight lines between those of a scale, at share t in [0, 1]. */
  function colorOf(scale, t) {
    const position = clamp(t, 0, 1) * (scale.length - 1);
    const i = Math.min(Math.floor(position), scale.length - 2);
    return rgb(scale[i].map((low, channel) => low + (position - i) * (scale[i + 1][channel] - low)));
  }

  // --- the data --------------------------------------------------------------------------------------------------

  const loading = new Map();

  function load(name) {
    if (!loading.has(name)) {
      loading.set(name, new Promise((resolve, reject) => {
        const script = html("script", { src: new URL(`${name}.js`, DATA).href });
        script.onload = () => resolve(prepare(window.minidatRuns[name]));
        script.onerror = () => reject(new Error(`${script.src} is not there`));
        document.head.append(script);
      }));
    }
    return loading.get(name);
  }

  /** Decode the attention of all blocks, and give each block its path. */
  async function prepare(what) {
    for (const [path, block] of Object.entries(what.blocks)) {
      block.path = path;
      const packed = Uint8Array.from(atob(block.attention), (character) => character.charCodeAt(0));
      const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
      const buffer = await new Response(unpacked).arrayBuffer();
      block.attention = block.bits === 16 ? new Uint16Array(buffer) : new Uint8Array(buffer);
      block.share = block.bits === 16 ? (number) => number / 65535 : (number) => (number / 255) ** 2;
      if (block.kind !== "deformable") {
        block.total = 0; // numbers a head
        block.start = block.set.map((which) => (block.total += block.sets[which].length) - block.sets[which].length);
      }
    }
    return what;
  }

  const blocksOf = (deformable) =>
    Object.values(data.blocks).filter((block) => (block.kind === "deformable") === deformable);

  /** The block of a name, the first one if there is none; null if there is none of this kind at all. */
  function findBlock(wish, deformable) {
    const blocks = blocksOf(deformable);
    if (wish === "last") return blocks.at(-1) ?? null;
    return blocks.find((block) => block.path === wish) ?? blocks[0] ?? null;
  }

  /** Rows and columns of a block's map whose middle is in the picture; what is beyond is padding. */
  const visible = (block) => block.map.map((n, axis) => Math.round(n / block.sides[axis]));

  /** The token of a block's map that a place on the picture belongs to, or the nearest one that is stored. */
  const cellOf = (block, at) =>
    at.map((share, axis) => {
      const step = stepOf(block);
      const place = (share / block.sides[axis]) * block.map[axis]; // in tokens; their centers are at halves
      const last = Math.floor((visible(block)[axis] - 1) / step);
      return step * clamp(step === 1 ? Math.floor(place) : Math.round((place - 0.5) / step), 0, last);
    });

  /** Every which query of a row and column is stored. */
  const stepOf = (block) => block.step ?? 1;

  /** The middle of a token as shares of the picture. */
  const middleOf = (block, cell) =>
    cell.map((index, axis) => ((index + 0.5) / block.map[axis]) * block.sides[axis]);

  /** What a query pays to each (group, key) of a deformable block. The mean is taken over the heads of each group. */
  function deformableShares(block, head, [row, column]) {
    const keys = block.reference.length;
    const [rows, columns] = block.map.map((n) => Math.ceil(n / block.step)); // of the queries that are stored
    const [queries, query] = [rows * columns, Math.floor(row / block.step) * columns + Math.floor(column / block.step)];
    const headsOfGroup = block.heads / block.groups;
    const shares = new Float64Array(block.groups * keys);
    for (let h = 0; h < block.heads; h++) {
      if (head !== "mean" && head !== h) continue;
      const first = Math.floor(h / headsOfGroup) * keys;
      for (let k = 0; k < keys; k++) {
        const share = block.share(block.attention[(h * queries + query) * keys + k]);
        shares[first + k] += head === "mean" ? share / headsOfGroup : share;
      }
    }
    return shares;
  }

  /** What a query pays to each token it sees: {tokens, shares}. */
  function localShares(block, head, [row, column]) {
    const query = row * block.map[1] + column;
    const tokens = block.sets[block.set[query]];
    const shares = tokens.map((_, i) => {
      let sum = 0;
      for (let h = 0; h < block.heads; h++) {
        if (head === "mean" || head === h) sum += block.share(block.attention[h * block.total + block.start[query] + i]);
      }
      return head === "mean" ? sum / block.heads : sum;
    });
    return { tokens, shares };
  }

  function sharpestHead(block, cell) {
    const largest = Array.from({ length: block.heads }, (_, head) =>
      Math.max(...(block.kind === "deformable" ? deformableShares(block, head, cell) : localShares(block, head, cell).shares)));
    return largest.indexOf(Math.max(...largest));
  }

  function findHead(wish, block) {
    if (wish === "sharpest") return sharpestHead(block, cellOf(block, view.at));
    const head = Number(wish);
    return wish !== "mean" && Number.isInteger(head) && head >= 0 && head < block.heads ? head : "mean";
  }

  // --- the address -----------------------------------------------------------------------------------------------

  const ADDRESS = { picture: "picture", block: "block", head: "head", window: "window", "window-head": "windowHead" };
  const OLD_NAMES = { photo: "picture", at: "query" }; // of addresses that are still about

  /** Take from an address what it says; the rest stays. */
  function read(address) {
    const wishes = new URLSearchParams(address.replace(/^#/, ""));
    for (const [old, name] of Object.entries(OLD_NAMES)) {
      if (wishes.has(old) && !wishes.has(name)) wishes.set(name, wishes.get(old));
    }
    for (const [name, field] of Object.entries(ADDRESS)) {
      if (wishes.get(name)) view[field] = wishes.get(name);
    }
    if (!pictures.some(({ name }) => name === view.picture)) view.picture = pictures[0].name;
    const at = (wishes.get("query") ?? "").split(",").map(Number);
    if (at.length === 2 && at.every(Number.isFinite)) view.at = at.map((share) => clamp(share, 0, 0.9999));
    if (wishes.has("offsets")) view.offsets = wishes.get("offsets") !== "off";
    if (wishes.has("show")) {
      view.pixels = wishes.get("show") === "pixels";
      view.answer = wishes.get("show") === "answer";
    }
  }

  function write() {
    const fields = Object.entries(ADDRESS).map(([name, field]) => `${name}=${view[field]}`);
    fields.push(`query=${queryText()}`, `offsets=${view.offsets ? "on" : "off"}`);
    const { task } = pictureNow();
    if (task === "classifier" ? view.pixels : view.answer) fields.push(`show=${task === "classifier" ? "pixels" : "answer"}`);
    else fields.push("show=picture");
    history.replaceState(history.state, "", `#${fields.join("&")}`);
  }

  const pictureNow = () => pictures.find(({ name }) => name === view.picture);
  const queryText = (separator = ",") => view.at.map((share) => +share.toFixed(3)).join(separator);

  // --- a panel: a picture that is moved over, its heads, its legend, what it says --------------------------------------

  class Panel {
    constructor(name, title) {
      this.name = name;
      this.title = title;
      this.code = html("code");
      this.facts = html("p.ex-facts");
      this.heads = html("fieldset.ex-heads");
      this.image = html("img", { alt: "", draggable: "false" });
      this.drawing = svg("svg", { "aria-hidden": "true" });
      this.stage = html("div.ex-stage", {
        tabindex: 0,
        role: "application",
        "aria-roledescription": "picture with a query",
        "aria-describedby": `ex-${name}-says`,
      }, this.image, this.drawing);
      this.legend = html("p.ex-legend", { "aria-hidden": "true" });
      this.says = html("p.ex-says", { id: `ex-${name}-says` });
      this.element = html(`section.ex-panel.ex-is-${name}`, {},
        html("div.ex-heading", {}, html("h2", {}, title, " ", this.code), this.facts),
        this.heads, this.stage, this.legend, this.says);
      this.listen();
    }

    get height() {
      return WIDTH * data.aspect;
    }

    /** Height and width of a token in the units of the drawing. */
    get cellSize() {
      const { map, sides } = this.block;
      return [(this.height * sides[0]) / map[0], (WIDTH * sides[1]) / map[1]];
    }

    /** A query's cell as x, y, width and height. */
    box(cell) {
      const [height, width] = this.cellSize;
      return { x: cell[1] * width, y: cell[0] * height, width, height };
    }

    listen() {
      let pressed = null; // where the mouse or finger went down
      const place = (event) => {
        const box = this.stage.getBoundingClientRect();
        return [(event.clientY - box.top) / box.height, (event.clientX - box.left) / box.width];
      };
      this.stage.addEventListener("pointerdown", (event) => {
        if (event.button !== 0) return;
        pressed = [event.clientX, event.clientY];
        pressed.time = event.timeStamp;
        this.stage.setPointerCapture(event.pointerId);
        if (!held && event.pointerType === "mouse") moveQuery(place(event));
      });
      // A finger that swipes up or down scrolls the page, which cancels the pointer (touch-action: pan-y). One that taps,
      // goes sideways first or rests a moment before it moves has the query, wherever it goes then.
      this.stage.addEventListener("touchmove", (event) => {
        if (pressed?.dragged && event.cancelable) event.preventDefault();
      }, { passive: false });
      this.stage.addEventListener("contextmenu", (event) => {
        if (pressed && event.pointerType !== "mouse") event.preventDefault(); // the menu of a finger that rests
      });
      this.stage.addEventListener("pointermove", (event) => {
        if (pressed && !pressed.dragged) {
          const [x, y] = [Math.abs(event.clientX - pressed[0]), Math.abs(event.clientY - pressed[1])];
          const rested = event.timeStamp - pressed.time > RESTS;
          pressed.dragged = Math.hypot(x, y) > 4 && (event.pointerType === "mouse" || x > y || rested);
        }
        if (pressed?.dragged || (event.pointerType === "mouse" && !held)) moveQuery(place(event));
      });
      this.stage.addEventListener("pointerup", (event) => {
        if (pressed && !pressed.dragged) {
          if (event.pointerType === "mouse") hold(!held, place(event));
          else moveQuery(place(event));
        }
        pressed = null;
      });
      this.stage.addEventListener("pointercancel", () => (pressed = null));
      this.stage.addEventListener("keydown", (event) => {
        const step = ARROWS[event.key];
        if (event.altKey || event.ctrlKey || event.metaKey) return;
        if (step) {
          const cell = cellOf(this.block, view.at).map((index, axis) =>
            clamp(index + step[axis] * stepOf(this.block), 0, visible(this.block)[axis] - 1));
          moveQuery(middleOf(this.block, cell));
        } else if (event.key === "Escape") {
          hold(false);
        } else if (event.key === "Enter" || event.key === " ") {
          hold(!held);
        } else {
          return;
        }
        event.preventDefault();
      });
    }

    /** A new picture or block: everything but the strengths. */
    build(block) {
      this.block = block;
      const pixels = view.pixels && pictureNow().task === "classifier";
      this.image.src = new URL(pixels ? `${view.picture}-pixels.png` : `${view.picture}.jpg`, DATA).href;
      this.stage.style.aspectRatio = `${1 / data.aspect}`;
      this.stage.classList.toggle("ex-pixels", pixels);
      this.stage.setAttribute("aria-label",
        `${pictureNow().title}, ${KINDS[block.kind].name}. The arrow keys move the query by one token, Enter holds it.`);
      this.code.textContent = block.path;
      set(this.drawing, { viewBox: `0 0 ${WIDTH} ${this.height}` });
      this.marker = svg("g", { class: "ex-query" },
        svg("rect", { class: "ex-halo", rx: 2 }), svg("rect", { rx: 2 }), svg("circle", { r: 4 }));
      this.drawing.replaceChildren(...this.shapes(), this.marker);
      this.buildHeads();
    }

    buildHeads() {
      const chosen = view[this.headField];
      const chip = (value, text, color) => {
        const input = html("input", { type: "radio", name: `ex-${this.name}-head`, value });
        input.checked = String(chosen) === String(value);
        input.addEventListener("change", () => choose({ [this.headField]: value }));
        const label = html("label.ex-chip", {}, input, html("span", {}, text));
        if (color) label.style.setProperty("--ex-color", color);
        return label;
      };
      const numbers = Array.from({ length: this.block.heads }, (_, head) => chip(head, `${head}`, this.headColor(head)));
      this.heads.replaceChildren(html("legend", {}, "Head"), chip("mean", "mean"), ...numbers);
    }

    headColor() {
      return null;
    }

    /** A new query or head. */
    draw() {
      const cell = cellOf(this.block, view.at);
      const head = view[this.headField];
      this.element.dataset.block = this.block.path;
      this.element.dataset.head = head;
      this.element.dataset.map = this.block.map.join(",");
      this.element.dataset.sides = this.block.sides.join(",");
      this.element.dataset.step = stepOf(this.block);
      this.element.dataset.query = cell.join(",");
      for (const input of this.heads.querySelectorAll("input")) input.checked = input.value === String(head);
      const box = this.box(cell);
      const inset = 0.03 * Math.min(box.width, box.height); // a window may have the same border
      for (const rect of this.marker.querySelectorAll("rect")) {
        set(rect, { x: box.x + inset, y: box.y + inset, width: box.width - 2 * inset, height: box.height - 2 * inset });
      }
      const dot = stepOf(this.block) === 1 ? 4 : 0; // where the reader is, unless that is between the queries there are
      set(this.marker.lastChild, { cx: view.at[1] * WIDTH, cy: view.at[0] * this.height, r: dot });
      this.drawShares(cell, head);
    }

    /** Where the query is, in words. */
    where(cell) {
      const [rows, columns] = visible(this.block);
      return `Query: row ${cell[0]}, column ${cell[1]} of ${rows} × ${columns} tokens. `;
    }

    /** An entry of the legend: a small drawing and what it stands for. */
    key(width, name, text, ...shapes) {
      return html("span", {}, svg("svg", { width, height: 12, class: name }, ...shapes), text);
    }

    queryKey() {
      return this.key(12, "ex-query", "query", svg("rect", { x: 1.5, y: 1.5, width: 9, height: 9, rx: 1 }));
    }

    /** Pixels of the screen for one unit of the drawings. */
    get scale() {
      return this.stage.clientWidth / WIDTH;
    }
  }

  // --- first: the points of a deformable block --------------------------------------------------------------------------

  class DeformablePanel extends Panel {
    headField = "head";

    shapes() {
      const { block } = this;
      const [rows, columns] = block.grid;
      const dense = pictureNow().task !== "classifier"; // many points, of which a few get most
      const spacing = Math.min(this.height / rows, WIDTH / columns);
      this.unitRadius = dense ? 0.075 * spacing : clamp(0.09 * spacing, 3, 9); // of an even share
      this.cross = dense ? 0.1 * spacing : 4;
      const onDrawing = ([y, x]) => [x * WIDTH, y * this.height];
      const references = block.reference.map(onDrawing);
      const arm = this.cross;
      const crosses = references.map(([x, y]) => `M${x - arm} ${y}h${2 * arm}M${x} ${y - arm}v${2 * arm}`).join("");
      this.window = svg("path", { class: "ex-window" });
      this.windowHalo = svg("path", { class: "ex-window ex-halo" });
      this.arms = [];
      this.discs = block.points.map((point, i) => {
        const [x, y] = onDrawing(point);
        const [fromX, fromY] = references[i % references.length];
        const color = this.groupColor(Math.floor(i / references.length));
        const lines = dense ? ["ex-line"] : ["ex-halo", "ex-line"];
        this.arms.push(svg("g", { class: "ex-arm" }, ...lines.map((name) =>
          svg("line", { class: name, x1: fromX, y1: fromY, x2: x, y2: y, stroke: color }))));
        return svg("circle", { class: "ex-disc", cx: x, cy: y, fill: color }, svg("title"));
      });
      return [
        this.grid(),
        this.windowHalo,
        this.window,
        svg("path", { class: "ex-cross ex-halo", d: crosses }),
        svg("path", { class: "ex-cross", d: crosses }),
        ...this.arms,
        ...this.discs,
      ];
    }

    grid() {
      const [rows, columns] = this.block.map;
      const [height, width] = this.cellSize;
      let lines = "";
      for (let i = 1; i < rows; i++) lines += `M0 ${i * height}h${WIDTH}`;
      for (let j = 1; j < columns; j++) lines += `M${j * width} 0v${this.height}`;
      return svg("path", { class: "ex-grid", d: lines });
    }

    build(block) {
      super.build(block);
      this.facts.textContent =
        `${count(block.points.length, "point")}: ${block.grid.join(" × ")} in ${count(block.groups, "group")}, ` +
        `${count(block.heads / block.groups, "head")} each` + (view.offsets ? "" : ", without offsets");
      if (!this.answer) this.stage.insertBefore((this.answer = html("div.ex-answer")), this.drawing);
      this.answer.replaceChildren(...answerShapes());
    }

    groupColor(group) {
      return rgb(data.groupColors[group % data.groupColors.length]);
    }

    headColor(head) {
      return this.groupColor(Math.floor(head / (this.block.heads / this.block.groups)));
    }

    drawShares(cell, head) {
      const { block } = this;
      const keys = block.reference.length;
      const shares = deformableShares(block, head, cell);
      const group = head === "mean" ? null : Math.floor(head / (block.heads / block.groups));
      const shown = (i) => group === null || Math.floor(i / keys) === group;
      const compared = panels.window.block !== null; // there is a window beside it
      const faint = !compared; // many points: only those that get more than an even share have bright lines
      let outside = 0;
      shares.forEach((share, i) => {
        const multiple = share * keys;
        set(this.discs[i], {
          r: shown(i) ? this.unitRadius * Math.sqrt(multiple) : 0,
          "fill-opacity": 0.4 + 0.55 * strength(multiple),
        });
        this.arms[i].classList.toggle("ex-hidden", !shown(i));
        this.arms[i].classList.toggle("ex-faint", faint && multiple < 1);
        this.discs[i].firstChild.textContent = `${percent(share)}, group ${Math.floor(i / keys)}, key ${i % keys}`;
        if (compared && !panels.window.sees(block.points[i])) outside += share;
      });
      outside /= group === null ? block.groups : 1;
      const outline = compared ? panels.window.outline(this.height) : "";
      set(this.window, { d: outline });
      set(this.windowHalo, { d: outline });

      const ofGroup = group === null && block.groups > 1 ? " of its group’s attention" : " of the attention";
      this.says.replaceChildren(
        this.where(cell),
        `The strongest of ${count(group === null ? shares.length : keys, "point")} gets `,
        html("strong", {}, percent(Math.max(...shares))),
        `${ofGroup}. `,
        ...(compared ? [html("strong.ex-outside", {}, percent(outside)), " goes to points outside the dashed window."] : []),
      );
      this.drawLegend(keys);
    }

    drawLegend(keys) {
      const disc = (multiple) => {
        const r = this.unitRadius * Math.sqrt(multiple) * this.scale;
        const side = 2 * r + 2;
        return svg("svg", { width: side, height: side },
          svg("circle", { cx: r + 1, cy: r + 1, r, class: "ex-disc ex-sample" }));
      };
      const { groups } = this.block;
      const many = panels.window.block ? 4 : 16; // even shares of the second disc
      const dots = Array.from({ length: groups }, (_, group) =>
        svg("circle", { cx: 5 + 11 * group, cy: 6, r: 4.5, fill: this.groupColor(group) }));
      this.legend.replaceChildren(
        this.queryKey(),
        this.key(12, "ex-key-cross", "reference point", svg("path", { d: "M6 1v10M1 6h10" })),
        html("span", {}, disc(1), `even share of attention, ${percent(1 / keys)}`),
        html("span", {}, disc(many), percent(Math.min(1, many / keys))),
        this.key(11 * groups, "ex-key-groups", groups === 1 ? "one group" : `${groups} groups of channels`, ...dots),
        ...(panels.window.block
          ? [this.key(26, "ex-key-window", "window, for comparison", svg("path", { d: "M0 6h26" }))]
          : []),
      );
    }
  }

  // --- second: the window of a local block ------------------------------------------------------------------------------

  class WindowPanel extends Panel {
    headField = "windowHead";
    block = null; // as long as there is no local block to show

    shapes() {
      const [rows, columns] = this.block.map;
      this.cells = [];
      for (let token = 0; token < rows * columns; token++) {
        const cell = [Math.floor(token / columns), token % columns];
        this.cells.push(svg("rect", { class: "ex-cell", ...this.box(cell) }, svg("title")));
      }
      this.border = svg("path", { class: "ex-border" });
      return [...this.cells, this.border];
    }

    build(block) {
      super.build(block);
      const sizes = block.sets.map((tokens) => tokens.length);
      const [least, most] = [Math.min(...sizes), Math.max(...sizes)];
      const [rows, columns] = block.map;
      const kind = KINDS[block.kind].name;
      const sees = least === most ? most : `${least} to ${most}`;
      this.facts.textContent =
        `${kind[0].toUpperCase()}${kind.slice(1)}: a query sees ${sees} of the ${rows * columns} tokens`;
    }

    /** The tokens that the query sees. */
    get tokens() {
      const [row, column] = cellOf(this.block, view.at);
      return this.block.sets[this.block.set[row * this.block.map[1] + column]];
    }

    /** Whether a place on the picture is in the query's window. */
    sees([y, x]) {
      if (Math.min(y, x) < 0 || Math.max(y, x) >= 1) return false;
      const [row, column] = cellOf(this.block, [y, x]);
      return this.tokens.includes(row * this.block.map[1] + column);
    }

    /** The outline of the query's window as a path, on a picture of this height. */
    outline(height) {
      const [rows, columns] = this.block.map;
      const [h, w] = [height / rows, WIDTH / columns];
      const inside = new Set(this.tokens);
      const has = (row, column) =>
        row >= 0 && row < rows && column >= 0 && column < columns && inside.has(row * columns + column);
      let path = "";
      // along the lines between rows, then those between columns; stretches on end become one line
      for (let i = 0; i <= rows; i++) {
        for (let j = 0; j < columns; j++) {
          if (has(i - 1, j) === has(i, j)) continue;
          const start = j;
          while (j + 1 < columns && has(i - 1, j + 1) !== has(i, j + 1)) j++;
          path += `M${start * w} ${i * h}H${(j + 1) * w}`;
        }
      }
      for (let j = 0; j <= columns; j++) {
        for (let i = 0; i < rows; i++) {
          if (has(i, j - 1) === has(i, j)) continue;
          const start = i;
          while (i + 1 < rows && has(i + 1, j - 1) !== has(i + 1, j)) i++;
          path += `M${j * w} ${start * h}V${(i + 1) * h}`;
        }
      }
      return path;
    }

    drawShares(cell, head) {
      const { tokens, shares } = localShares(this.block, head, cell);
      const share = new Map(tokens.map((token, i) => [token, shares[i]]));
      this.cells.forEach((rect, token) => {
        const seen = share.has(token);
        const t = seen ? strength(share.get(token) * tokens.length) : 0;
        set(rect, {
          class: seen ? "ex-cell ex-seen" : "ex-cell",
          fill: seen ? colorOf(data.heatColors, t) : "rgb(0 0 0)",
          "fill-opacity": seen ? 0.15 + 0.7 * t : 0.55,
        });
        rect.firstChild.textContent = seen ? percent(share.get(token)) : "";
      });
      set(this.border, { d: this.outline(this.height) });
      const all = tokens.length === this.cells.length;
      this.says.replaceChildren(
        this.where(cell),
        all ? "Its window is the whole map. " : `It sees ${count(tokens.length, "token")} and nothing else. `,
        "The strongest gets ",
        html("strong", {}, percent(Math.max(...shares))),
        " of the attention.",
      );
      this.drawLegend(tokens.length);
    }

    drawLegend(tokens) {
      const stops = Array.from({ length: 17 }, (_, i) => colorOf(data.heatColors, i / 16));
      const bar = html("span.ex-bar");
      bar.style.background = `linear-gradient(to right, ${stops.join(", ")})`;
      const tick = (multiple, text) => {
        const mark = html("span.ex-tick", {}, text);
        mark.style.left = `${100 * strength(multiple)}%`;
        return mark;
      };
      bar.append(tick(0, "0"), tick(1, `even share, ${percent(1 / tokens)}`));
      if (tokens > 4) bar.append(tick(4, percent(4 / tokens)));
      if (tokens > 16) bar.append(tick(16, percent(16 / tokens)));
      this.legend.replaceChildren(this.queryKey(), html("span", {}, "color: attention to a token"), bar);
    }
  }

  const panels = {
    deformable: new DeformablePanel("deformable", "Deformable attention"),
    window: new WindowPanel("window", "Window attention"),
  };

  // --- the rest of the page --------------------------------------------------------------------------------------------

  const chooser = html("fieldset.ex-pictures", {}, html("legend", {}, "Picture"));
  const network = html("div.ex-network");
  const switches = html("div.ex-switches", { role: "group", "aria-label": "What is shown" });
  const answers = html("div.ex-answers");
  const status = html("p.ex-status", { role: "status" });
  const holding = html("p.ex-holding", {}, "");
  const command = document.querySelector(".ex-command code");

  function buildPictures() {
    const thumbnails = html("div.ex-thumbnails");
    for (const { name, title, task } of pictures) {
      const input = html("input", { type: "radio", name: "ex-picture", value: name });
      input.addEventListener("change", () => choose({ picture: name }));
      thumbnails.append(html("label.ex-thumbnail", { title: `${title}: a ${task} looks at it` },
        input, html("img", { src: new URL(`${name}.jpg`, DATA).href, alt: "" }), html("span", {}, title)));
    }
    chooser.append(thumbnails);
    for (const field of ["offsets", "pixels", "answer"]) {
      const box = html("input", { type: "checkbox", id: `ex-${field}` });
      box.addEventListener("change", () => choose({ [field]: box.checked }));
      switches.append(html("label.ex-box", {}, box, html("span")));
    }
  }

  function buildSwitches() {
    const { task } = pictureNow();
    const texts = {
      offsets: "offsets: points may move",
      pixels: task === "classifier" ? `as the model sees it, ${data.pixels.join(" × ")} pixels` : null,
      answer: { detector: "the boxes it found", segmentor: "the classes it found" }[task] ?? null,
    };
    for (const [field, text] of Object.entries(texts)) {
      const box = switches.querySelector(`#ex-${field}`);
      box.checked = view[field];
      box.parentElement.hidden = text === null;
      box.nextSibling.textContent = text ?? "";
    }
  }

  /** The stages and their blocks; a block is a button for the panel that can show it. */
  function buildNetwork() {
    const kinds = new Set();
    const stages = data.stages.map((stage, i) => {
      const blocks = stage.blocks.map((kind, j) => {
        kinds.add(kind);
        const path = `stages.${i}.blocks.${j}`;
        const field = kind === "deformable" ? "block" : "window";
        const input = html("input", { type: "radio", name: `ex-${field}`, value: path });
        input.disabled = !(path in data.blocks);
        input.checked = view[field] === path && !input.disabled;
        input.addEventListener("change", () => choose({ [field]: path }));
        return html(`label.ex-block.ex-is-${field === "block" ? "deformable" : "window"}`,
          { title: `${path}: ${KINDS[kind].name}${input.disabled ? ", not shown for large pictures" : ""}` },
          input, html("span", { "aria-hidden": "true" }, KINDS[kind].letter),
          html("span.ex-unseen", {}, `${path}, ${KINDS[kind].name}`));
      });
      return html("div.ex-level", {},
        html("span.ex-level-name", {}, `stages.${i} `, html("small", {}, stage.map.join(" × "))),
        html("span.ex-blocks", {}, ...blocks));
    });
    const letters = [...kinds].map((kind) => html("span", {}, html("b", {}, KINDS[kind].letter), ` ${KINDS[kind].name}`));
    network.replaceChildren(
      html("p.ex-title", {}, "Block of the network"),
      html("div.ex-levels", { role: "group", "aria-label": "Blocks of the network" }, ...stages),
      html("p.ex-letters", { "aria-hidden": "true" }, ...letters));
  }

  /** What the model says; an object that a detector found is a button that makes the query of its middle. */
  function buildAnswers() {
    const entries = answersToList().map(({ label, share, color, box }) => {
      const bar = html("span.ex-probability");
      bar.style.setProperty("--ex-share", share);
      if (color) bar.style.setProperty("--ex-color", rgb(color));
      const name = box ? html("button", { type: "button", title: "the query moves to its middle" }, label) : html("span", {}, label);
      if (box) {
        name.addEventListener("click", () => {
          hold(true, [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2]);
          panels.deformable.stage.focus({ preventScroll: true });
        });
      }
      return html("li", {}, name, bar, html("span", {}, percent(share)));
    });
    const what = { detector: `${run.answers.length} objects found`, segmentor: "Largest classes" };
    const title = (what[pictureNow().task] ?? "The model’s answer") + (view.offsets ? "" : ", without offsets");
    answers.replaceChildren(html("p.ex-title", {}, title), html("ol", {}, ...entries));
  }

  /** Of a detector's objects the best of each class, then others; of the rest all. */
  function answersToList() {
    if (pictureNow().task !== "detector") return run.answers;
    const isFirst = (answer, i) => run.answers.findIndex(({ label }) => label === answer.label) === i;
    const first = run.answers.filter(isFirst);
    return [...first, ...run.answers.filter((answer, i) => !isFirst(answer, i))].slice(0, OBJECTS);
  }

  /** What lies over a picture where the reader wants to see the answer. */
  function answerShapes() {
    const { task } = pictureNow();
    if (!view.answer) return [];
    if (task === "segmentor") {
      const name = `${view.picture}${view.offsets ? "" : "-regular"}-classes.png`;
      return [html("img.ex-classes", { src: new URL(name, DATA).href, alt: "" })];
    }
    if (task !== "detector") return [];
    return run.answers.map(({ label, color, box: [top, left, bottom, right] }) => {
      const shape = html("span.ex-object", { title: label });
      const edges = { top, left, height: bottom - top, width: right - left };
      for (const [edge, share] of Object.entries(edges)) shape.style[edge] = `${100 * share}%`;
      shape.style.borderColor = rgb(color);
      return shape;
    });
  }

  function hold(on, at = view.at) {
    held = on;
    root.classList.toggle("ex-held", held);
    root.dataset.held = held;
    holding.textContent = held
      ? "The query is held. Click the picture again, or press Esc, to let it go."
      : "Click to hold the query where it is.";
    moveQuery(at);
  }

  function moveQuery(at) {
    view.at = at.map((share) => clamp(share, 0, 0.9999));
    schedule();
  }

  /** Change what is shown. */
  async function choose(changes) {
    Object.assign(view, changes);
    const wish = () => `${view.picture} ${view.offsets}`;
    const wanted = wish();
    const both = [load(view.picture), view.offsets ? null : load(`${view.picture}-regular`)];
    const [loaded, regular] = await Promise.all(both);
    if (wish() !== wanted) return; // the reader has gone on
    data = loaded;
    run = regular ?? loaded;
    view.block = findBlock(view.block, true).path;
    const block = run.blocks[view.block];
    const window = findBlock(view.window, false); // none for large pictures
    view.head = findHead(view.head, block);
    if (window) {
      view.window = window.path;
      view.windowHead = findHead(view.windowHead, window);
    }
    chooser.querySelector(`[value="${view.picture}"]`).checked = true;
    buildSwitches();
    if (root.dataset.model !== data.model) buildNetwork();
    for (const input of network.querySelectorAll("input")) {
      input.checked = !input.disabled && (input.value === view.block || input.value === view.window);
    }
    buildAnswers();
    root.classList.toggle("ex-large", !window);
    root.style.setProperty("--ex-aspect", data.aspect);
    panels.window.element.hidden = !window;
    if (!window) panels.window.block = null;
    if (changed("window", [view.picture, view.pixels, window?.path]) && window) panels.window.build(window);
    const what = [view.picture, view.pixels, view.answer, view.offsets, view.block];
    if (changed("deformable", what)) panels.deformable.build(block);
    root.dataset.model = data.model;
    update();
    root.dataset.ready = "true";
  }

  const built = {};

  function changed(name, values) {
    const now = values.join();
    const differs = built[name] !== now;
    built[name] = now;
    return differs;
  }

  function update() {
    const drawn = Object.values(panels).filter(({ block }) => block);
    for (const panel of drawn) panel.draw();
    Object.assign(root.dataset, {
      picture: view.picture,
      block: view.block,
      head: view.head,
      window: view.window,
      windowHead: view.windowHead,
      offsets: view.offsets ? "on" : "off",
      query: queryText(),
    });
    const { task, weights } = pictureNow();
    command.textContent = `minidat visualize examples/images/${view.picture}.jpg --block ${view.block}` +
      (task === "classifier" ? "" : ` --weights weights/${weights}.npz`) +
      (view.head === "mean" ? "" : ` --head ${view.head}`) + ` --query ${queryText(" ")}`;
    clearTimeout(update.later);
    update.later = setTimeout(() => {
      write();
      status.textContent = drawn.map(({ title, says }) => `${title}. ${says.textContent}`).join(" ");
    }, 300);
  }

  let scheduled = false;

  function schedule() {
    if (scheduled || !data) return;
    scheduled = true;
    requestAnimationFrame(() => {
      scheduled = false;
      update();
    });
  }

  /** Show what an address says. */
  function go(address) {
    read(address);
    return choose({});
  }

  function start() {
    root.querySelector(".ex-wait").remove();
    const guide = root.querySelector(".ex-try");
    buildPictures();
    root.prepend(
      html("div.ex-top", {}, chooser, network, switches),
      html("div.ex-panels", {}, panels.deformable.element, panels.window.element, html("div.ex-side", {}, answers, guide)),
      status);
    guide.append(holding);
    hold(false);
    for (const button of guide.querySelectorAll("button")) {
      button.addEventListener("click", async () => {
        hold(false);
        await go(button.dataset.view);
        const target = button.dataset.focus === "head"
          ? panels.deformable.heads.querySelector("input:checked")
          : panels[button.dataset.focus].stage;
        target.focus({ preventScroll: true });
        panels.deformable.element.scrollIntoView({ block: "nearest" });
      });
    }
    window.addEventListener("hashchange", () => go(location.hash));
    new ResizeObserver(schedule).observe(root);
    read(root.dataset.view);
    go(location.hash).catch((error) => {
      root.append(html("p.ex-wait", {}, `The data could not be read: ${error.message}.`));
    });
  }

  start();
})();
