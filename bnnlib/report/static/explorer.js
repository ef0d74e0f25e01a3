"use strict";
// The energy explorer. The first half is arithmetic, the same as bnnlib/energy/cost.py; the second half is the page.
// window.bnnData comes from bnnlib/report/explorer.py.

const bnn = {
  operand: (code) => bnnData.operands[code],

  kind: (operand) => (operand.startsWith("fixed") ? "fixed" : operand),

  // The entry of a pair; one for fixed8 goes before one for fixed, which is any width.
  find(table, act, weight) {
    for (const [a, w] of [[act, weight], [act, bnn.kind(weight)], [bnn.kind(act), weight], [bnn.kind(act), bnn.kind(weight)]]) {
      const entry = bnnData.tables[table].find((one) => one.act === a && one.weight === w);
      if (entry) return entry;
    }
    return null;
  },

  // Femtojoules of one MAC in a dot product of `length`: linear in log2(length), or in 1 / length if synthesised.
  cost(table, act, weight, length) {
    const entry = bnn.find(table, act, weight);
    if (!entry) {
      const others = Object.keys(bnnData.tables).filter((name) => bnn.find(name, act, weight));
      throw new Error(
        `table '${table}' has no energy for activation ${act} x weight ${weight}; ` +
          (others.length ? `tables that have it: ${others.join(", ")}` : "no table in data/energy has it"));
    }
    const { lengths, energies, synthesised } = entry;
    if (lengths.length === 1) return energies[0];
    const x = synthesised ? (n) => 1 / n : Math.log2;
    if (!synthesised && length <= lengths[0]) return energies[0];
    if (!synthesised && length >= lengths.at(-1)) return energies.at(-1);
    let k = lengths.findIndex((one) => one >= length);
    k = Math.min(Math.max(k < 0 ? lengths.length : k, 1), lengths.length - 1); // of the two points around it, the second
    const share = (x(length) - x(lengths[k - 1])) / (x(lengths[k]) - x(lengths[k - 1]));
    return energies[k - 1] + share * (energies[k] - energies[k - 1]);
  },

  // A row a layer, energies in femtojoules; spec: {arch, weights, acts, width}, one code a letter.
  rows(spec, table) {
    return bnnData.networks[spec.arch].layers[spec.width].map((layer, i) => {
      const act = layer.image || bnn.operand(spec.acts[i - 1]);
      const weight = bnn.operand(spec.weights[i]);
      return { ...layer, act, weight, fj: layer.macs * bnn.cost(table, act, weight, layer.vector) };
    });
  },

  uj: (spec, table) => bnn.rows(spec, table).reduce((sum, row) => sum + row.fj, 0) * 1e-9,

  // What `bnn cost` prints: a list of texts a layer, and the totals.
  printed(spec, table) {
    const rows = bnn.rows(spec, table);
    const total = rows.reduce((sum, row) => sum + row.fj, 0) * 1e-9;
    const whole = (n) => n.toLocaleString("en-US");
    const lines = rows.map((row) => [
      row.name, whole(row.macs), whole(row.vector), row.act, row.weight,
      (row.fj * 1e-9).toFixed(4), (((row.fj * 1e-9) / total) * 100).toFixed(1) + "%",
    ]);
    const macs = rows.reduce((sum, row) => sum + row.macs, 0);
    return { lines, total: ["total", whole(macs), "", "", "", total.toFixed(4), ""], shares: rows.map((row) => row.fj * 1e-9 / total) };
  },

  command(spec, table) {
    const width = spec.width === "1" ? "" : ` --width ${spec.width}`;
    return `bnn cost ${spec.arch} --weights ${spec.weights} --acts ${spec.acts}${width} --table ${table}`;
  },

  same: (a, b) => a.weights === b.weights && a.acts === b.acts && Number(a.width) === Number(b.width),
};
window.bnn = bnn;

document.addEventListener("DOMContentLoaded", () => {
  const root = document.getElementById("explorer");
  if (!root) return;
  const $ = (name) => root.querySelector(`[data-of=${name}]`);
  const state = { arch: "lenet5", weights: "bbbb", acts: "bbb", width: "1", table: "icmla2020", points: 0 };
  const network = () => bnnData.networks[state.arch];

  function options(select, pairs, chosen) {
    select.replaceChildren(...pairs.map(([value, text]) => new Option(text, value, false, String(value) === String(chosen))));
  }

  const operands = Object.entries(bnnData.operands).map(([code, name]) => [code, name]);

  function changed(codes, i, code) {
    return codes.slice(0, i) + code + codes.slice(i + 1);
  }

  function choose(spec) {
    for (const key of ["arch", "weights", "acts", "width"]) if (spec[key] !== undefined) state[key] = String(spec[key]);
    update();
  }

  function operandSelect(label, code, set) {
    const select = document.createElement("select");
    options(select, operands, code);
    select.setAttribute("aria-label", label);
    select.addEventListener("change", () => { set(select.value); update(); });
    return select;
  }

  function drawLayers() {
    const focus = document.activeElement?.getAttribute?.("aria-label");
    let printed = null, message = "";
    try { printed = bnn.printed(state, state.table); } catch (error) { message = error.message; }
    $("error").textContent = message;
    const body = network().layers[state.width].map((layer, i) => {
      const row = document.createElement("tr");
      const texts = printed ? printed.lines[i] : [layer.name, "", "", "", "", "-", "-"];
      texts.forEach((text, column) => {
        const cell = row.insertCell();
        if (column === 3 && i > 0) {
          cell.append(operandSelect(`input of ${layer.name}`, state.acts[i - 1], (code) => { state.acts = changed(state.acts, i - 1, code); }));
        } else if (column === 4) {
          cell.append(operandSelect(`weights of ${layer.name}`, state.weights[i], (code) => { state.weights = changed(state.weights, i, code); }));
        } else {
          cell.textContent = text || (column === 3 ? layer.image : "");
        }
        if (column === 6 && printed) {
          const bar = document.createElement("span");
          bar.className = "bar";
          bar.style.width = `${(100 * printed.shares[i]).toFixed(2)}%`;
          cell.append(bar);
        }
      });
      return row;
    });
    $("layers").replaceChildren(...body);
    if (focus) [...root.querySelectorAll("select")].find((one) => one.getAttribute("aria-label") === focus)?.focus();
    const total = document.createElement("tr");
    (printed ? printed.total : ["total", "", "", "", "", "-", ""]).forEach((text) => { total.insertCell().textContent = text; });
    $("totals").replaceChildren(total);
    return printed;
  }

  function compare() {
    const binary = { ...state, weights: "b".repeat(state.weights.length), acts: "b".repeat(state.acts.length), width: "1" };
    try {
      const uj = bnn.uj(state, state.table), times = uj / bnn.uj(binary, state.table);
      $("total").textContent = `${uj.toFixed(4)} µJ a classification: ${times.toPrecision(3)} × the all-binary network of width 1`;
    } catch { $("total").textContent = "no energy for this choice"; }
  }

  const svg = (name, attributes, text) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text !== undefined) node.textContent = text;
    return node;
  };

  const accuracy = (p) => `${p.accuracy.toFixed(2)}${p.sd === null ? "" : ` ± ${p.sd.toFixed(2)}`} %${p.n ? ` (n = ${p.n})` : ""}`;

  function drawPlane() {
    const set = network().points[state.points], plane = $("plane");
    const known = set.points.map((point) => {
      try { return { ...point, uj: bnn.uj({ arch: state.arch, ...point, width: String(point.width) }, state.table) }; } catch { return null; }
    }).filter(Boolean);
    let chosen = null;
    try { chosen = bnn.uj(state, state.table); } catch { /* said above */ }
    const [w, h, left, right, top, bottom] = [720, 380, 62, 24, 16, 48];
    const energies = known.map((p) => p.uj).concat(chosen ? [chosen] : []);
    if (!energies.length) { plane.replaceChildren(); return; }
    const log = Math.log10, lo = log(Math.min(...energies)) - 0.12, hi = log(Math.max(...energies)) + 0.25;
    const values = known.flatMap((p) => [p.accuracy - (p.sd || 0), p.accuracy + (p.sd || 0)]);
    const low = Math.min(...values), high = Math.max(...values), pad = Math.max(0.08 * (high - low), 0.02);
    const x = (uj) => left + ((log(uj) - lo) / (hi - lo)) * (w - left - right);
    const y = (a) => top + ((high + pad - a) / (high - low + 2 * pad)) * (h - top - bottom);
    const nodes = [svg("title", {}, "Test accuracy over energy"), svg("rect", { x: left, y: top, width: w - left - right, height: h - top - bottom, class: "frame" })];
    const candidates = [1, 2, 5].flatMap((d) => [-5, -4, -3, -2, -1, 0, 1, 2, 3, 4].map((e) => d * 10 ** e));
    for (const tick of candidates.filter((v) => log(v) > lo && log(v) < hi)) {
      nodes.push(svg("line", { x1: x(tick), x2: x(tick), y1: top, y2: h - bottom, class: "grid" }),
        svg("text", { x: x(tick), y: h - bottom + 18, "text-anchor": "middle" }, String(Number(tick.toPrecision(1)))));
    }
    const step = [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10].find((s) => (high - low + 2 * pad) / s <= 7) || 20;
    for (let tick = Math.ceil((low - pad) / step) * step; tick <= high + pad; tick += step) {
      nodes.push(svg("line", { x1: left, x2: w - right, y1: y(tick), y2: y(tick), class: "grid" }),
        svg("text", { x: left - 8, y: y(tick) + 4, "text-anchor": "end" }, tick.toFixed(step < 0.1 ? 2 : step < 1 ? 1 : 0)));
    }
    nodes.push(svg("text", { x: (left + w - right) / 2, y: h - 8, "text-anchor": "middle" }, `energy of the multiply-accumulates (µJ a classification, table ${state.table})`),
      svg("text", { transform: `translate(16 ${(top + h - bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, "test accuracy (%)"));
    if (chosen) {
      nodes.push(svg("line", { x1: x(chosen), x2: x(chosen), y1: top, y2: h - bottom, class: "chosen" }));
    }
    const taken = known.map((p) => [x(p.uj) - 6, x(p.uj) + 6, y(p.accuracy)]);
    for (const p of known) {
      const here = bnn.same(p, state), class_ = `${set.ours ? "ours" : "theirs"}${here ? " here" : ""}`;
      if (p.sd) nodes.push(svg("line", { x1: x(p.uj), x2: x(p.uj), y1: y(p.accuracy - p.sd), y2: y(p.accuracy + p.sd), class: "spread" }));
      const mark = svg("circle", { cx: x(p.uj), cy: y(p.accuracy), r: here ? 7 : 5, class: class_ });
      mark.append(svg("title", {}, `${p.name}: ${p.uj.toFixed(4)} µJ, ${accuracy(p)}`));
      mark.addEventListener("click", () => choose({ weights: p.weights, acts: p.acts, width: p.width }));
      nodes.push(mark);
    }
    for (const p of known) {
      const width = 6.6 * p.name.length;
      for (const side of [1, -1]) {
        const begin = side > 0 ? x(p.uj) + 9 : x(p.uj) - 9 - width, level = y(p.accuracy);
        if (begin < left || begin + width > w - right) continue;
        if (taken.some(([a, b, l]) => a < begin + width && b > begin && Math.abs(l - level) < 13)) continue;
        taken.push([begin, begin + width, level]);
        nodes.push(svg("text", { x: side > 0 ? begin : begin + width, y: level + 4, "text-anchor": side > 0 ? "start" : "end", class: "name" }, p.name));
        break;
      }
    }
    plane.replaceChildren(...nodes);
    const match = known.find((p) => bnn.same(p, state));
    $("known").textContent = match
      ? `${match.name}: ${accuracy(match)} test accuracy, ${set.name}.`
      : "No accuracy of this very network is in the chosen set; the line is its energy.";
  }

  function update() {
    const presets = network().presets, now = presets.findIndex((one) => bnn.same(one, state));
    options($("arch"), Object.keys(bnnData.networks).map((name) => [name, name]), state.arch);
    options($("preset"), [[-1, "own choice"], ...presets.map((one, i) => [i, one.name])], now);
    options($("width"), Object.keys(network().layers).sort((a, b) => a - b).map((one) => [one, `× ${one}`]), state.width);
    options($("table"), Object.keys(bnnData.tables).map((one) => [one, one]), state.table);
    options($("points"), network().points.map((one, i) => [i, one.name]), state.points);
    options($("weights"), [["", "set all"], ...operands], "");
    options($("acts"), [["", "set all"], ...operands], "");
    drawLayers();
    compare();
    drawPlane();
    $("command").textContent = bnn.command(state, state.table);
    history.replaceState(null, "", `#${[state.arch, state.weights, state.acts, state.width, state.table].join("/")}`);
  }

  const on = (name, set) => $(name).addEventListener("change", (event) => { set(event.target.value); update(); });
  on("arch", (arch) => {
    const count = bnnData.networks[arch].layers["1"].length;
    Object.assign(state, { arch, weights: "b".repeat(count), acts: "b".repeat(count - 1), points: 0 });
  });
  on("preset", (i) => { const one = network().presets[i]; if (one) Object.assign(state, { weights: one.weights, acts: one.acts, width: String(one.width) }); });
  on("width", (width) => { state.width = width; });
  on("table", (table) => { state.table = table; });
  on("points", (i) => { state.points = Number(i); });
  on("weights", (code) => { if (code) state.weights = code.repeat(state.weights.length); });
  on("acts", (code) => { if (code) state.acts = code.repeat(state.acts.length); });
  $("copy").addEventListener("click", async () => {
    try { await navigator.clipboard.writeText($("command").textContent); $("copied").textContent = "copied"; }
    catch { getSelection().selectAllChildren($("command")); $("copied").textContent = "selected: copy it with your keyboard"; }
  });

  // A configuration in the address, as this page writes it; anything else is ignored as a whole.
  function fromAddress() {
    const [arch, weights, acts, width, table] = decodeURIComponent(location.hash.slice(1)).split("/");
    const layers = bnnData.networks[arch]?.layers[width];
    const codes = (text, count) => text?.length === count && [...text].every((code) => bnnData.operands[code]);
    if (layers && codes(weights, layers.length) && codes(acts, layers.length - 1) && bnnData.tables[table]) {
      Object.assign(state, { arch, weights, acts, width, table, points: arch === state.arch ? state.points : 0 });
    }
  }
  window.addEventListener("hashchange", () => { fromAddress(); update(); });
  fromAddress();
  update();
});
