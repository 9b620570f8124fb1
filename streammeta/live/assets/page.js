// Feeds the page: snapshots come as server-sent events, numbers go into cells, curves into the
// sources of Bokeh's charts. Nothing is drawn here.
"use strict";

const query = location.search; // such as ?token=...
const whole = new Intl.NumberFormat("en", {maximumFractionDigits: 0});
const short = new Intl.NumberFormat("en", {maximumSignificantDigits: 4});
const by = (id) => document.getElementById(id);

let plan = null; // what the charts have room for
let docs = {}; // chart -> Bokeh document
let building = false;
let rowsShown = 0;
let driftsTold = null;
let newest = null; // snapshot

const told = (value) =>
  value === null || value === undefined ? "–"
    : typeof value === "number" ? (Number.isInteger(value) ? whole : short).format(value)
      : String(value);

function state(name, words) {
  by("link").dataset.state = name;
  by("link").textContent = words;
}

function element(name, text, kind) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function tiles(now) {
  const score = (name) => now.scores[name];
  const others = Object.keys(now.scores).filter((name) => name !== "model");
  const cells = [
    [`${now.score}, last ${whole.format(now.window)}`, told(score("model")), "", "first"],
    ...others.map((name) => [`${now.score}, ${name}`, told(score(name))]),
    ["rows", whole.format(now.rows), `${whole.format(now.events_per_second)} a second`],
    ["drifts", whole.format(now.n_drifts)],
    ["adaptations", whole.format(now.adaptations)],
    ["outer steps", whole.format(now.meta_updates)],
    ["inner rate", now.rates ? told(now.rates[1]) : "–",
      now.rates ? `${told(now.rates[0])} to ${told(now.rates[2])}` : ""],
    ["labels pending", whole.format(now.pending),
      now.expired ? `${whole.format(now.expired)} never came` : ""],
    ["lag", now.lag === null ? "–" : whole.format(now.lag), now.lag === null ? "" : "events"],
    ["last snapshot", now.committed === null ? "none"
      : `${whole.format(Math.max(0, now.at - now.committed))} s ago`],
    ["rejected", whole.format(now.rejected)],
  ];
  by("tiles").replaceChildren(...cells.map(([name, value, more, kind]) => {
    const box = element("div", undefined, kind);
    const cell = element("dd", value);
    if (more) cell.append(" ", element("small", more));
    box.append(element("dt", name), cell);
    return box;
  }));
}

function table(place, head, rows) {
  const line = (cells, name) => {
    const made = element("tr");
    made.append(...cells.map((text, i) => element(name, text, head[i][1])));
    return made;
  };
  const top = element("thead");
  const body = element("tbody");
  top.append(line(head.map(([name]) => name), "th"));
  body.append(...rows.map((cells) => line(cells, "td")));
  place.replaceChildren(top, body);
}

function tables(now) {
  const keyed = now.predictions.some((one) => one.key !== "");
  table(by("answers"),
    [["row"], ...(keyed ? [["key", "words"]] : []), ["answer"], ["truth"], ["loss"]],
    [...now.predictions].reverse().map((one) => [
      whole.format(one.row), ...(keyed ? [one.key] : []), told(one.prediction), told(one.truth),
      told(one.loss)]));
  by("keys").hidden = now.keys.length === 0;
  table(by("keys").querySelector("table"), [["key", "words"], ["recent loss"], ["labels"]],
    now.keys.map(([key, loss, labels]) => [key, told(loss), whole.format(labels)]));
  if (driftsTold === now.n_drifts) return;
  by("drifts").hidden = now.drifts.length === 0;
  const some = now.drifts.some((one) => one.key !== "");
  table(by("drifts").querySelector("table"),
    [["row"], ["since"], ...(some ? [["key", "words"]] : []), ["signal", "words"],
      ["what changed", "words"]],
    [...now.drifts].reverse().map((one) => [
      whole.format(one.row), whole.format(one.onset), ...(some ? [one.key] : []), one.signal,
      one.text]));
  if (driftsTold !== null && now.n_drifts > driftsTold) {
    const newest = now.drifts[now.drifts.length - 1];
    const of = newest.key === "" ? "" : ` of ${newest.key}`;
    by("news").textContent = `Drift${of} at row ${whole.format(newest.row)}: ${newest.text}`;
    by("news").classList.remove("fresh");
    requestAnimationFrame(() => by("news").classList.add("fresh"));
  }
  driftsTold = now.n_drifts;
}

// Whether the charts have room for all that the snapshot holds.
function fits(now) {
  const known = new Set(plan.groups.flat());
  const filled = (points) => Object.keys(points).filter((name) => points[name].rows.length);
  return plan.window === now.window && plan.title === now.title
    && filled(now.curves).every((name) => plan.curves.includes(name))
    && filled(now.meta).every((name) => plan.learners.includes(name))
    && (now.weight_rows.length === 0 || Object.keys(now.weights).every((name) => known.has(name)))
    && (now.before.rows.length === 0 || "adapting" in docs);
}

async function build(now) {
  building = true;
  try {
    const answer = await fetch(`page/charts${query}`, {cache: "no-store"});
    if (!answer.ok) throw new Error(`page/charts: ${answer.status}`);
    const made = await answer.json();
    const found = {};
    for (const place of document.querySelectorAll(".chart")) {
      const item = made.items.find((one) => one.target_id === place.id);
      const old = docs[place.id.slice("chart-".length)];
      if (old) old.clear(); // takes its views away
      place.replaceChildren();
      if (!item) continue;
      const views = await Bokeh.embed.embed_item(item);
      found[place.id.slice("chart-".length)] = views.get_by_id(item.root_id).model.document;
    }
    plan = {...made, window: now.window, title: now.title};
    docs = found;
    show(rowsShown);
  } catch (fault) {
    plan = null; // the server went away meanwhile: the next snapshot tries again
    console.warn(fault);
  } finally {
    building = false;
  }
}

const fill = (chart, name, data) => {
  if (chart in docs) docs[chart].get_model_by_name(name).data = data;
};

// All charts show the same rows, at a height that is there; see _span in page.py.
function span(chart, now, values) {
  if (!values.length) return;
  const y = values[values.length - 1];
  fill(chart, "span", {x: [0, now.rows], y: [y, y]});
}

// The charts may know of a curve that a snapshot does not have yet: they were asked for after it.
const points = (known, name) => known[name] || {rows: [], values: []};

function curves(now) {
  for (const name of plan.curves) {
    const {rows, values} = points(now.curves, name);
    fill("score", `line:${name}`, {x: rows, y: values});
  }
  const alarms = {x: now.drifts.map((one) => one.row), text: now.drifts.map((one) => one.text)};
  fill("score", "alarms", alarms);
  span("score", now, points(now.curves, plan.curves[0]).values);
  span("weights", now, [0.5]);
  span("adapting", now, now.after.values);
  span("learning", now, points(now.meta, plan.learners[0]).values);
  fill("weights", "alarms:shares", alarms);
  const shares = {x: now.weight_rows};
  plan.groups.forEach((group, i) => {
    shares[`s${i}`] = now.weight_rows.map(
      (_, at) => group.reduce((sum, family) => sum + ((now.weights[family] || [])[at] ?? 0), 0));
  });
  fill("weights", "shares", shares);
  fill("adapting", "changes",
    {x: now.before.rows, before: now.before.values, after: now.after.values});
  for (const name of plan.learners) {
    const {rows, values} = points(now.meta, name);
    fill("learning", `line:${name}`, {x: rows, y: values});
  }
}

function show(rows) {
  rowsShown = rows;
  for (const button of document.querySelectorAll("button[data-rows]"))
    button.setAttribute("aria-pressed", String(Number(button.dataset.rows) === rows));
  for (const chart of ["score", "weights"]) {
    if (!docs[chart]) continue;
    const range = docs[chart].roots()[0].x_range;
    range.reset(); // what was zoomed
    range.follow = rows ? "end" : null;
    range.follow_interval = rows || null;
  }
  if (newest && plan !== null) curves(newest); // a range follows when data comes
}

async function take(now) {
  newest = now;
  state("live", "live");
  document.title = `${now.title} – streammeta`;
  by("title").textContent = now.title;
  tiles(now);
  tables(now);
  if (building) return;
  if (plan === null || !fits(now)) await build(now);
  if (plan !== null && fits(now)) curves(now);
}

function listen() {
  const stream = new EventSource(`page/stream${query}`);
  stream.onmessage = (event) => take(JSON.parse(event.data));
  stream.onerror = () => {
    state("lost", "connection lost, trying again");
    if (stream.readyState === EventSource.CLOSED) { // the browser has given up: we do not
      stream.close();
      setTimeout(listen, 2000);
    }
  };
}

for (const button of document.querySelectorAll("button[data-rows]"))
  button.addEventListener("click", () => show(Number(button.dataset.rows)));
listen();
