// Figures inside the chapters that the reader moves: <div class="widget" data-widget="bilinear">, made from a block
//
//     ```widget
//     bilinear
//     ```
//
// Each computes what its chapter derives, and writes it into its attribute data-state, as JSON, where
// docs/site_tools/check_widgets.py compares it with minidat's own operators.
(() => {
  "use strict";
  const { html, svg, set } = window.minidatElements;
  const DATA = new URL("../widgets/", document.currentScript.src);
  const ARROWS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  const NAMES = ["a", "b", "c", "d"]; // of the four pixels around a point, in rows
  const CORNERS = [[0, 0], [0, 1], [1, 0], [1, 1]]; // (dy, dx) of these

  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
  const signed = (value, digits = 2) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(digits)}`;
  const number = (value, digits = 2) => (value < 0 ? "−" : "") + Math.abs(value).toFixed(digits);

  // --- what all have in common ------------------------------------------------------------------------------------

  /** A point to drag, on a drawing of this width and height: a button, since a finger on it must not scroll the page.
   *
   * move(y, x) is called with a place in the units of the drawing, step(rows, columns) for an arrow key.
   */
  function handle(stage, [height, width], label, move, step) {
    const button = html("button.wi-handle", { type: "button", role: "slider", "aria-label": label, "aria-valuenow": 0 });
    const place = (event) => {
      const box = stage.getBoundingClientRect();
      move(((event.clientY - box.top) / box.height) * height, ((event.clientX - box.left) / box.width) * width);
    };
    let from = null; // how far from its middle the point was taken
    button.addEventListener("pointerdown", (event) => {
      const box = button.getBoundingClientRect();
      from = [event.clientX - box.left - box.width / 2, event.clientY - box.top - box.height / 2];
      button.setPointerCapture(event.pointerId);
    });
    button.addEventListener("pointermove", (event) => {
      if (from) place({ clientX: event.clientX - from[0], clientY: event.clientY - from[1] });
    });
    for (const end of ["pointerup", "pointercancel"]) button.addEventListener(end, () => (from = null));
    button.addEventListener("keydown", (event) => {
      if (!(event.key in ARROWS) || event.altKey || event.ctrlKey || event.metaKey) return;
      step(...ARROWS[event.key]);
      event.preventDefault();
    });
    stage.append(button);
    return {
      button,
      place,
      /** Put it there, and say what is read at the place. */
      set(y, x, text) {
        button.style.top = `${(100 * y) / height}%`;
        button.style.left = `${(100 * x) / width}%`;
        button.setAttribute("aria-valuetext", text);
      },
    };
  }

  /** Axes with a curve or several; set(x) moves the line that marks a place. The scales are [low, high]. */
  class Plot {
    constructor(title, [left, right], [low, high], ticks) {
      Object.assign(this, { left, right, low, high });
      const [width, height] = [240, 120];
      this.size = [width, height];
      this.curves = svg("g");
      this.mark = svg("line", { class: "wi-mark", y1: 0, y2: height });
      this.dots = svg("g");
      const lines = ticks.x.map((x) => svg("line", { class: "wi-rule", x1: this.x(x), x2: this.x(x), y1: 0, y2: height }));
      lines.push(...ticks.y.map((y) => svg("line", { class: "wi-rule", x1: 0, x2: width, y1: this.y(y), y2: this.y(y) })));
      const texts = ticks.x.map((x) => svg("text", { x: this.x(x), y: height + 13, "text-anchor": "middle" }, number(x, 0)));
      texts.push(...ticks.y.map((y) => svg("text", { x: -4, y: this.y(y) + 4, "text-anchor": "end" }, number(y, 1))));
      this.drawing = svg("svg", { viewBox: `-26 -6 ${width + 34} ${height + 22}`, "aria-hidden": "true" },
        ...lines, ...texts, this.mark, this.curves, this.dots);
      this.element = html("figure.wi-plot", {}, html("figcaption", {}, title), this.drawing);
    }

    x = (x) => ((x - this.left) / (this.right - this.left)) * this.size[0];
    y = (y) => (1 - (y - this.low) / (this.high - this.low)) * this.size[1];

    /** A line through (x, f(x)) for these x. */
    curve(xs, f, name) {
      return svg("polyline", { class: `wi-curve ${name}`, points: xs.map((x) => `${this.x(x)},${this.y(f(x))}`).join(" ") });
    }

    dot(x, y, name) {
      return svg("circle", { class: `wi-dot ${name}`, cx: this.x(x), cy: this.y(y), r: 4.5 });
    }

    set(x) {
      set(this.mark, { x1: this.x(x), x2: this.x(x) });
    }
  }

  const range = (low, high, steps) => Array.from({ length: steps + 1 }, (_, i) => low + ((high - low) * i) / steps);

  /** A table: rows of cells, the first row its heads. */
  function table(...rows) {
    const lines = rows.map((cells, i) => html("tr", {}, ...cells.map((cell) => html(i ? "td" : "th", {}, cell))));
    return html("table.wi-table", {}, html("thead", {}, lines[0]), html("tbody", {}, ...lines.slice(1)));
  }

  function choice(label, texts, chosen) {
    const select = html("select", {}, ...texts.map((text, i) => html("option", { value: i }, text)));
    select.addEventListener("change", () => chosen(Number(select.value)));
    return html("label.wi-choice", {}, label, select);
  }

  // --- chapter 7: a point between four pixels ------------------------------------------------------------------------

  /** Bilinear sampling of a map of 2 x 2 at p, in pixels: (7b), (7e) and (7f). Outside there are zeros. */
  function sample(map, [y, x]) {
    const [y0, x0] = [Math.floor(y), Math.floor(x)];
    const [fy, fx] = [y - y0, x - x0];
    const corners = CORNERS.map(([dy, dx]) => {
      const [row, column] = [y0 + dy, x0 + dx];
      return {
        place: [row, column],
        value: map[row]?.[column] ?? 0,
        inside: map[row]?.[column] !== undefined,
        weight: (dy ? fy : 1 - fy) * (dx ? fx : 1 - fx),
      };
    });
    const [a, b, c, d] = corners.map(({ value }) => value);
    return {
      corners,
      value: corners.reduce((sum, { weight, value }) => sum + weight * value, 0),
      slopes: [(1 - fx) * (c - a) + fx * (d - b), (1 - fy) * (b - a) + fy * (d - c)],
    };
  }

  function bilinear(root) {
    const MAPS = [
      ["at the rim of the cat’s eye", [[0.52, 0.17], [0.02, 0.24]]],
      ["a saddle: a + d is not b + c", [[0.9, 0.1], [0.1, 0.9]]],
      ["a plane: a + d = b + c", [[0.2, 0.5], [0.5, 0.8]]],
      ["all alike", [[0.7, 0.7], [0.7, 0.7]]],
    ];
    const [CELL, EDGE] = [64, 1.55]; // a pixel; and how far before the center of pixel 0 the drawing begins, in pixels
    const SIDE = CELL * (2 * EDGE + 1);
    const on = (pixels) => (pixels + EDGE) * CELL;
    let [map, point] = [MAPS[0][1], [0.3, 0.6]];

    const stage = html("div.wi-stage");
    const pixels = CORNERS.map(([y, x]) =>
      svg("rect", { x: on(x - 0.5), y: on(y - 0.5), width: CELL, height: CELL }));
    const names = CORNERS.map(([y, x]) =>
      svg("text", { class: "wi-name", x: on(x) + (x - 0.5) * 0.9 * CELL, y: on(y) + (y - 0.5) * 0.76 * CELL + 4, "text-anchor": x ? "end" : "start" }));
    const parts = CORNERS.map((_, i) => svg("rect", { class: `wi-part wi-color-${i}` }));
    const square = svg("rect", { class: "wi-square", width: CELL, height: CELL });
    const outside = svg("text", { class: "wi-outside", x: SIDE / 2, y: 15, "text-anchor": "middle" }, "outside: zeros");
    stage.append(svg("svg", { viewBox: `0 0 ${SIDE} ${SIDE}`, "aria-hidden": "true" },
      outside, ...pixels, ...parts, ...CORNERS.map(([y, x]) => svg("circle", { class: "wi-center", cx: on(x), cy: on(y), r: 2.5 })),
      ...names, square));
    const grip = handle(stage, [SIDE, SIDE], "Sampling point, moved by the arrow keys",
      (y, x) => go([y / CELL - EDGE, x / CELL - EDGE]),
      (dy, dx) => go([point[0] + dy / 20, point[1] + dx / 20].map((p) => Math.round(20 * p) / 20)));
    stage.addEventListener("click", (event) => event.target !== grip.button && grip.place(event));

    const weights = html("div.wi-weights");
    const ticks = { x: [-1, 0, 1, 2], y: [0, 0.5, 1] };
    const plots = ["y", "x"].map((axis) => new Plot(`value along ${axis}`, [-1.3, 2.3], [0, 1], ticks));
    const slopes = ["y", "x"].map(() => html("strong"));
    plots.forEach((plot, axis) =>
      plot.element.firstChild.append(": slope ", slopes[axis]));
    root.append(
      html("div.wi-controls", {}, choice("Four pixels: ", MAPS.map(([text]) => text), (i) => ((map = MAPS[i][1]), draw()))),
      html("div.wi-row", {}, stage, weights, html("div.wi-plots", {}, ...plots.map(({ element }) => element))));

    function go(wanted) {
      point = wanted.map((p) => clamp(p, -1, 2));
      draw();
    }

    function draw() {
      const { corners, value, slopes: slope } = sample(map, point);
      CORNERS.forEach(([y, x], i) => {
        const gray = Math.round(255 * map[y][x]);
        set(pixels[i], { fill: `rgb(${gray} ${gray} ${gray})` });
        names[i].style.fill = gray < 128 ? "#fff" : "#000";
        names[i].textContent = `${NAMES[i]} ${map[y][x].toFixed(2)}`;
        // what the square around the point has in common with this corner's pixel
        const { place, weight, inside } = corners[i];
        const [top, left] = place.map((p, axis) => Math.max(p, point[axis]) - 0.5);
        const [height, width] = place.map((p, axis) => 1 - Math.abs(p - point[axis]));
        set(parts[i], { y: on(top), x: on(left), height: height * CELL, width: width * CELL });
        parts[i].classList.toggle("wi-nothing", !inside || weight === 0);
      });
      set(square, { y: on(point[0] - 0.5), x: on(point[1] - 0.5) });
      const rows = corners.map(({ place, value: v, weight, inside }) => [
        inside ? NAMES[2 * place[0] + place[1]] : "outside", weight.toFixed(3), v.toFixed(2), (weight * v).toFixed(3)]);
      weights.replaceChildren(table(["pixel", "weight", "value", "product"], ...rows,
        ["sum", corners.reduce((sum, { weight }) => sum + weight, 0).toFixed(3), "", html("strong", {}, value.toFixed(3))]));
      weights.querySelectorAll("tbody tr").forEach((row, i) => {
        if (i < 4 && corners[i].inside) row.firstChild.classList.add("wi-key", `wi-color-${i}`);
      });
      const kinks = [-1.3, -1, 0, 1, 2, 2.3];
      plots.forEach((plot, axis) => {
        const at = (p) => point.map((other, i) => (i === axis ? p : other));
        const along = (p) => sample(map, at(p)).value;
        const tangent = (p) => value + slope[axis] * (p - point[axis]);
        const ends = [point[axis] - 0.45, point[axis] + 0.45];
        plot.curves.replaceChildren(plot.curve(kinks, along, "wi-soft"), plot.curve(ends, tangent, "wi-strong"));
        plot.dots.replaceChildren(plot.dot(point[axis], value, "wi-strong"));
        plot.set(point[axis]);
        slopes[axis].textContent = signed(slope[axis]);
      });
      grip.set(on(point[0]), on(point[1]), `y ${number(point[0])}, x ${number(point[1])}: value ${number(value)}, ` +
        `slopes ${number(slope[0])} and ${number(slope[1])}`);
      root.dataset.state = JSON.stringify(
        { map, point, value, slopes: slope, weights: corners.map(({ weight }) => weight) });
    }

    draw();
  }

  // --- chapter 8: an offset and its leash -----------------------------------------------------------------------------

  /** Position and its slope for an offset o, of point i of n: (8a), (8b), (8d) and (8e). */
  const RULES = {
    dat: (o, i, n, factor = 2) => {
      const u = ((i + 0.5) / n) * 2 - 1;
      return { u, position: u + (factor / n) * Math.tanh(o), slope: (factor / n) * (1 - Math.tanh(o) ** 2) };
    },
    "dat++": (o, i, n) => {
      const u = ((i + 0.5) / (n - 1)) * 2 - 1;
      return { u, position: clamp(u + o, -1, 1), slope: Math.abs(u + o) <= 1 ? 1 : 0 };
    },
  };
  const RULE_NAMES = { dat: "DAT", "dat++": "DAT++" };

  function leash(root) {
    const [N, LIMIT] = [5, 4]; // points on the axis; the largest offset
    let [o, index] = [0.5, 2];
    const slider = html("input", { type: "range", min: -LIMIT, max: LIMIT, step: 0.05, value: o, "aria-label": "offset o" });
    const read = html("output");
    slider.addEventListener("input", () => ((o = Number(slider.value)), draw()));

    // one line a rule: the axis from -1 to 1, the points before their offsets, how far one may go, where it is
    const [WIDTH, ROW] = [340, 34];
    const at = (u) => (0.52 + u / 2.9) * WIDTH;
    const lines = Object.keys(RULES).map((rule, row) => {
      const y = (row + 0.5) * ROW;
      const crosses = range(0, N - 1, N - 1).map((i) => RULES[rule](0, i, N).u);
      const reach = svg("rect", { class: `wi-reach wi-${row ? "free" : "tied"}`, y: y - 8, height: 16, rx: 3 });
      const arm = svg("line", { class: `wi-curve wi-${row ? "free" : "tied"}`, y1: y, y2: y });
      const dot = svg("circle", { class: `wi-dot wi-${row ? "free" : "tied"}`, cy: y, r: 6 });
      const element = svg("g", {},
        svg("line", { class: "wi-rule", x1: at(-1), x2: at(1), y1: y, y2: y }), reach,
        svg("path", { class: "wi-cross", d: crosses.map((u) => `M${at(u) - 5} ${y}h10M${at(u)} ${y - 5}v10`).join("") }),
        arm, dot, svg("text", { class: "wi-name", x: 2, y: y + 4 }, RULE_NAMES[rule]));
      return { element, reach, arm, dot };
    });
    const ends = [-1, 1].map((u) => svg("text", { x: at(u), y: 2 * ROW + 10, "text-anchor": "middle" }, number(u, 0)));
    const axis = html("div.wi-axis", {}, svg("svg", { viewBox: `0 0 ${WIDTH} ${2 * ROW + 14}`, "aria-hidden": "true" },
      ...lines.map(({ element }) => element), ...ends));

    const plots = [
      new Plot("position p", [-LIMIT, LIMIT], [-1.1, 1.1], { x: [-4, -2, 0, 2, 4], y: [-1, 0, 1] }),
      new Plot("slope ∂p/∂o", [-LIMIT, LIMIT], [-0.05, 1.1], { x: [-4, -2, 0, 2, 4], y: [0, 0.4, 1] }),
    ];
    for (const plot of plots) {
      const drag = (event) => {
        if (!event.buttons) return;
        const box = plot.drawing.getBoundingClientRect();
        const x = ((event.clientX - box.left) / box.width) * (plot.size[0] + 34) - 26;
        o = clamp(plot.left + (x / plot.size[0]) * (plot.right - plot.left), -LIMIT, LIMIT);
        draw();
      };
      plot.drawing.addEventListener("pointerdown", drag);
      plot.drawing.addEventListener("pointermove", drag);
    }
    const says = Object.keys(RULES).map(() => html("p.wi-says"));
    root.append(
      html("div.wi-controls", {},
        html("label.wi-slide", {}, "offset o = ", read, slider),
        choice("point ", range(0, N - 1, N - 1).map((i) => `${i} of 0 … ${N - 1}`), (i) => ((index = i), draw()))),
      axis, html("div.wi-row", {}, ...plots.map(({ element }) => element)), ...says);
    root.querySelector("select").value = index;

    function draw() {
      slider.value = o;
      read.textContent = number(o);
      const found = Object.entries(RULES).map(([rule, place]) => ({ rule, ...place(o, index, N) }));
      found.forEach(({ rule, u, position }, i) => {
        const [low, high] = [-99, 99].map((far) => at(RULES[rule](far, index, N).position));
        set(lines[i].reach, { x: low, width: high - low });
        set(lines[i].arm, { x1: at(u), x2: at(position) });
        set(lines[i].dot, { cx: at(position) });
      });
      const curve = (plot, part, i) => {
        const [rule, name] = [found[i].rule, i ? "wi-free" : "wi-tied"];
        const value = (x) => RULES[rule](x, index, N)[part];
        return [plot.curve(range(-LIMIT, LIMIT, 400), value, name), plot.dot(o, found[i][part], name)];
      };
      plots.forEach((plot, which) => {
        const drawn = [0, 1].map((i) => curve(plot, which ? "slope" : "position", i));
        plot.curves.replaceChildren(...drawn.map(([line]) => line));
        plot.dots.replaceChildren(...drawn.map(([, dot]) => dot));
        plot.set(o);
      });
      const [tied, free] = found;
      says[0].replaceChildren(html("b.wi-tied", {}, "DAT"), `: tanh(o) = ${number(Math.tanh(o), 3)}, p = ${number(tied.position, 3)}; `,
        `slope ${tied.slope.toFixed(3)}, ${(100 * (1 - Math.tanh(o) ** 2)).toFixed(1)} % of what it is at o = 0.`);
      says[1].replaceChildren(html("b.wi-free", {}, "DAT++"), `: u + o = ${number(free.u + o, 3)}, p = ${number(free.position, 3)}; `,
        free.slope ? "slope 1." : "slope 0: pressed against the fence.");
      slider.setAttribute("aria-valuetext", `${number(o)}. ${says.map(({ textContent }) => textContent).join(" ")}`);
      root.dataset.state = JSON.stringify({ o, index, points: N, found });
    }

    draw();
  }

  // --- chapter 9: sixteen points that rebuild a picture -----------------------------------------------------------------

  const SCALE = 30; // of the scores
  const POINTS = 4; // a side
  const LEASH = 1 / POINTS; // range factor 1

  /** The chapter's `rebuild` for one picture: colors, which are queries too, and what points cost. */
  class Rebuilding {
    /** pixels: numbers in [0, 1], three a pixel, in rows of `side`. */
    constructor(side, pixels) {
      const count = side * side;
      this.side = side;
      this.mean = [0, 1, 2].map((c) => range(0, count - 1, count - 1).reduce((sum, i) => sum + pixels[3 * i + c], 0) / count);
      const centered = Float64Array.from(pixels, (value, i) => value - this.mean[i % 3]);
      const norm = (i) => Math.hypot(centered[3 * i], centered[3 * i + 1], centered[3 * i + 2]);
      let longest = 0;
      for (let i = 0; i < count; i++) longest = Math.max(longest, norm(i));
      this.radius = 1.01 * longest;
      this.colors = new Float64Array(4 * count); // of length 1 each
      for (let i = 0; i < count; i++) {
        for (let c = 0; c < 3; c++) this.colors[4 * i + c] = centered[3 * i + c] / this.radius;
        this.colors[4 * i + 3] = Math.sqrt(1 - (norm(i) / this.radius) ** 2);
      }
      this.reference = [];
      for (let i = 0; i < POINTS; i++) {
        for (let j = 0; j < POINTS; j++) this.reference.push([i, j].map((k) => ((k + 0.5) / POINTS) * 2 - 1));
      }
    }

    /** Points (y, x) in [-1, 1] -> the loss, its gradient by each point, and the picture as (side side) x 4 numbers. */
    run(points) {
      const { side, colors } = this;
      const queries = side * side;
      const toPixels = (side - 1) / 2;
      const reads = points.map((p) => {
        const [y, x] = p.map((u) => (u + 1) * toPixels);
        const [y0, x0] = [y, x].map((v) => Math.min(Math.floor(v), side - 2));
        return { first: 4 * (y0 * side + x0), fy: y - y0, fx: x - x0 };
      });
      const down = 4 * side; // from a color to the one below it
      const keys = reads.map(({ first, fy, fx }) => [0, 1, 2, 3].map((c) => {
        const [a, b] = [colors[first + c], colors[first + 4 + c]];
        const [below, right] = [colors[first + down + c], colors[first + down + 4 + c]];
        return (1 - fy) * ((1 - fx) * a + fx * b) + fy * ((1 - fx) * below + fx * right);
      }));
      const dKeys = keys.map(() => [0, 0, 0, 0]); // keys and values are the same: both gradients
      const picture = new Float64Array(4 * queries);
      const share = new Float64Array(keys.length);
      const dShare = new Float64Array(keys.length);
      const error = [0, 0, 0, 0];
      let loss = 0;
      for (let q = 0; q < queries; q++) {
        const color = colors.subarray(4 * q, 4 * q + 4);
        let [largest, sum] = [-Infinity, 0];
        keys.forEach((key, k) => {
          share[k] = SCALE * (color[0] * key[0] + color[1] * key[1] + color[2] * key[2] + color[3] * key[3]);
          largest = Math.max(largest, share[k]);
        });
        for (let k = 0; k < share.length; k++) sum += share[k] = Math.exp(share[k] - largest);
        for (let c = 0; c < 4; c++) {
          let mixed = 0;
          for (let k = 0; k < share.length; k++) mixed += (share[k] / sum) * keys[k][c];
          picture[4 * q + c] = mixed;
          error[c] = mixed - color[c];
          loss += error[c] ** 2 / queries;
        }
        let mean = 0;
        for (let k = 0; k < share.length; k++) {
          share[k] /= sum;
          dShare[k] = 0;
          for (let c = 0; c < 4; c++) dShare[k] += ((2 * error[c]) / queries) * keys[k][c];
          mean += share[k] * dShare[k];
        }
        for (let k = 0; k < share.length; k++) {
          const dScore = SCALE * share[k] * (dShare[k] - mean);
          for (let c = 0; c < 4; c++) dKeys[k][c] += dScore * color[c] + (share[k] * 2 * error[c]) / queries;
        }
      }
      const gradients = reads.map(({ first, fy, fx }, k) => {
        const gradient = [0, 0];
        for (let c = 0; c < 4; c++) { // (9b)
          const [a, b] = [colors[first + c], colors[first + 4 + c]];
          const [below, right] = [colors[first + down + c], colors[first + down + 4 + c]];
          gradient[0] += dKeys[k][c] * ((1 - fx) * (below - a) + fx * (right - b)) * toPixels;
          gradient[1] += dKeys[k][c] * ((1 - fy) * (b - a) + fy * (right - below)) * toPixels;
        }
        return gradient;
      });
      return { loss, gradients, picture };
    }
  }

  function load(name) {
    return new Promise((resolve, reject) => {
      const script = html("script", { src: new URL(`${name}.js`, DATA).href });
      script.onload = () => resolve(window.minidatWidgets[name]);
      script.onerror = () => reject(new Error(`${script.src} is not there`));
      document.head.append(script);
    });
  }

  async function descent(root) {
    const { side, pixels } = await load("horse");
    const bytes = Uint8Array.from(atob(pixels), (character) => character.charCodeAt(0));
    const numbers = Float64Array.from(new Uint16Array(bytes.buffer), (value) => value / 65535);
    const task = new Rebuilding(side, numbers);
    const [STEPS, RATE, SHORT] = [100, 0.1, 0.02]; // the chapter's descent; the length of a single step
    const offsets = task.reference.map(() => [0, 0]); // what goes into tanh
    const first = task.run(task.reference).loss;
    let [chosen, running, step, smooth] = [5, false, 0, null];

    const UNIT = 240; // of the drawing, a side; pixels have their centers half a pixel inside
    const on = (u) => ((((u + 1) / 2) * (side - 1) + 0.5) / side) * UNIT;
    const back = (v) => ((v / UNIT) * side - 0.5) / ((side - 1) / 2) - 1;
    const canvases = [0, 1].map(() => html("canvas", { width: side, height: side, "aria-hidden": "true" }));
    const stage = html("div.wi-stage", {}, canvases[0]);
    const reach = svg("rect", { class: "wi-reach-frame" });
    const arrows = task.reference.map(() => svg("path", { class: "wi-arrow" }));
    const dots = task.reference.map(() => svg("circle", { class: "wi-dot wi-tied", r: 5 }));
    const crosses = task.reference.map(([y, x]) => `M${on(x) - 3} ${on(y)}h6M${on(x)} ${on(y) - 3}v6`).join("");
    stage.append(svg("svg", { viewBox: `0 0 ${UNIT} ${UNIT}`, "aria-hidden": "true" },
      svg("path", { class: "wi-cross", d: crosses }), reach, ...dots, ...arrows));
    const grips = task.reference.map((_, i) => handle(stage, [UNIT, UNIT], `Point ${i}, moved by the arrow keys`,
      (y, x) => move(i, [back(y), back(x)]),
      (dy, dx) => move(i, position(i).map((p, axis) => p + [dy, dx][axis] / 57))));
    grips.forEach(({ button }, i) => button.addEventListener("focus", () => ((chosen = i), draw())));
    const says = html("p.wi-says", { role: "status" });
    const buttons = {
      "One step downhill": oneStep,
      [`${STEPS} steps`]: descend,
      "Back to the grid": restart,
    };
    root.append(
      html("div.wi-row", {},
        html("figure.wi-picture", {}, html("figcaption", {}, "sixteen points; an arrow shows where the loss falls"), stage),
        html("figure.wi-picture", {}, html("figcaption", {}, "rebuilt from their colors"), html("div.wi-stage", {}, canvases[1]))),
      html("div.wi-controls", {}, ...Object.entries(buttons).map(([text, action]) => {
        const button = html("button.wi-button", { type: "button" }, text);
        button.addEventListener("click", action);
        return button;
      })), says);
    paint(canvases[0], (i, c) => numbers[3 * i + c]);

    function position(i) {
      return task.reference[i].map((u, axis) => u + LEASH * Math.tanh(offsets[i][axis]));
    }

    function move(i, wanted) {
      running = false;
      chosen = i;
      offsets[i] = wanted.map((p, axis) => Math.atanh(clamp((p - task.reference[i][axis]) / LEASH, -0.98, 0.98)));
      schedule();
    }

    function restart() {
      running = false;
      offsets.forEach((offset) => offset.fill(0));
      draw();
    }

    /** Gradients by the points -> by the offsets, (9c). */
    function byOffset(gradients) {
      return gradients.map((gradient, i) =>
        gradient.map((g, axis) => g * LEASH * (1 - Math.tanh(offsets[i][axis]) ** 2)));
    }

    /** The chapter's steps: smoothed gradients, brought to similar sizes, ever shorter. */
    function take(gradients) {
      const slopes = byOffset(gradients);
      smooth = smooth.map((old, i) => old.map((value, axis) => 0.8 * value + 0.2 * slopes[i][axis]));
      go(smooth, RATE * (1 - step / STEPS));
      step++;
    }

    /** Move the offsets against this direction, large and small numbers of which are brought to similar sizes. */
    function go(direction, length) {
      const mean = direction.flat().reduce((sum, value) => sum + Math.abs(value), 0) / (2 * direction.length);
      direction.forEach((values, i) => values.forEach((value, axis) => {
        offsets[i][axis] -= (length * value) / (Math.abs(value) + mean);
      }));
    }

    function gradientsHere() {
      return task.run(offsets.map((_, i) => position(i))).gradients;
    }

    function oneStep() {
      running = false;
      go(byOffset(gradientsHere()), SHORT);
      draw();
    }

    function descend() {
      running = true;
      step = 0;
      smooth = offsets.map(() => [0, 0]);
      const quiet = matchMedia("(prefers-reduced-motion: reduce)").matches;
      while (quiet && step < STEPS) take(gradientsHere());
      const next = () => {
        if (!running) return; // the reader has taken a point
        if (step < STEPS) take(gradientsHere());
        draw();
        if (step < STEPS) requestAnimationFrame(next);
      };
      next();
    }

    let scheduled = false;

    function schedule() {
      if (scheduled) return;
      scheduled = true;
      requestAnimationFrame(() => ((scheduled = false), draw()));
    }

    function draw() {
      const points = offsets.map((_, i) => position(i));
      const { loss, gradients, picture } = task.run(points);
      const LENGTH = 150; // units of an arrow for a slope of 1
      points.forEach(([y, x], i) => {
        const [fromY, fromX] = [on(y), on(x)];
        const slope = Math.hypot(...gradients[i]);
        const length = Math.min(LENGTH * slope, 60);
        const [dy, dx] = gradients[i].map((g) => (slope ? -g / slope : 0));
        const [toY, toX] = [fromY + dy * length, fromX + dx * length];
        const head = Math.min(7, length / 2);
        const barb = (side) => `${toX - head * (dx + side * 0.6 * dy)} ${toY - head * (dy - side * 0.6 * dx)}`;
        set(arrows[i], { d: length < 1 ? "" : `M${fromX} ${fromY}L${toX} ${toY}M${barb(1)}L${toX} ${toY}L${barb(-1)}` });
        set(dots[i], { cx: fromX, cy: fromY });
        dots[i].classList.toggle("wi-chosen", i === chosen);
        grips[i].set(fromY, fromX, `y ${number(y)}, x ${number(x)}. Loss ${loss.toFixed(4)}, ` +
          `slopes ${number(gradients[i][0], 4)} down and ${number(gradients[i][1], 4)} to the right`);
      });
      const [top, left] = task.reference[chosen].map((u) => on(u - LEASH));
      set(reach, { y: top, x: left, width: on(0) - on(-2 * LEASH), height: on(0) - on(-2 * LEASH) });
      paint(canvases[1], (i, c) => picture[4 * i + c] * task.radius + task.mean[c]);
      const [down, right] = gradients[chosen];
      says.replaceChildren("Squared error ", html("strong", {}, loss.toFixed(4)), ` (regular grid ${first.toFixed(4)}). `,
        `The chosen point: slope ${signed(down, 4)} downward, ${signed(right, 4)} to the right.`);
      root.dataset.state = JSON.stringify({ points, loss, gradients });
    }

    function paint(canvas, value) {
      const drawing = canvas.getContext("2d");
      const image = drawing.createImageData(side, side);
      for (let i = 0; i < side * side; i++) {
        for (let c = 0; c < 3; c++) image.data[4 * i + c] = Math.round(255 * clamp(value(i, c), 0, 1));
        image.data[4 * i + 3] = 255;
      }
      drawing.putImageData(image, 0, 0);
    }

    draw();
  }

  const WIDGETS = { bilinear, leash, descent };
  for (const root of document.querySelectorAll(".widget[data-widget]")) {
    const wait = root.querySelector(".wi-wait");
    Promise.resolve(WIDGETS[root.dataset.widget](root)).then(
      () => wait.remove(),
      (error) => (wait.textContent = `The figure could not be drawn: ${error.message}.`));
  }
})();
