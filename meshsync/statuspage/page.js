// The page shows a report, which is in it at first, and fetches another one now and then. Everything that
// others have written becomes text, never markup.

const ANSWER_WITHIN = 10000; // ms
const $ = id => document.getElementById(id);
const rows = new Map(); // by peer ID
let timer, failed; // failed: when the node began not to answer

// The head of the page.

function showHead() {
  const c = report.counts, up = c.direct + c.relay + c.degraded + c.suspect, wanted = c.peers - c.gone, trouble = c.away + c.suspect + c.degraded;
  const words = ["away", "suspect", "degraded"].filter(s => c[s]).map(s => `${c[s].toLocaleString()} ${s}`);
  const lead = wanted === 0 ? "No peers yet" : up === wanted ? (wanted === 1 ? "The peer is connected" : `All ${wanted.toLocaleString()} peers are connected`) : "";
  $("summary").replaceChildren(...(lead ? [lead] : [el("b", "", up.toLocaleString()), ` of ${wanted.toLocaleString()} peers connected`]),
    ...(words.length ? [" · ", el("b", "is-away", words.join(", "))] : []));
  document.title = (trouble ? `(${words.join(", ")}) ` : "") + report.node.title + " · mesh";
  const colour = c.away ? "%23cc372e" : trouble ? "%23d9a21b" : "%2350a06a", shape = trouble ? "M8 1 15 14H1Z" : "M8 1a7 7 0 1 0 .1 0Z";
  const icon = `data:image/svg+xml,<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><path fill="${colour}" d="${shape}"/></svg>`;
  if ($("icon").getAttribute("href") !== icon) $("icon").setAttribute("href", icon);
  setText($("watched"), "watched for " + span(age(report.node.watched_since)));
  setText($("fresh"), "as of " + at(report.time));
  const states = Object.keys(SIGNS).filter(s => c[s]);
  $("share").replaceChildren(...states.map(s => {
    const part = el("i", "fill-" + s);
    part.style.flexGrow = c[s];
    return part;
  }));
  showChips(states);
}
function showChips(states) {
  const chips = $("chips"), focused = chips.contains(document.activeElement) && document.activeElement.dataset.state;
  chips.replaceChildren(...states.map(s => {
    const b = el("button", "is-" + s, ...signed(s, `${report.counts[s].toLocaleString()} ${MEANING[s]}`));
    b.type = "button";
    b.dataset.state = s;
    b.setAttribute("aria-pressed", String($("filter").value === "state:" + s));
    return b;
  }));
  if (focused) chips.querySelector(`[data-state=${focused}]`)?.focus();
}
function showRelays() {
  $("relays").hidden = report.relays.length === 0;
  const good = {connected: "direct", dialing: "connecting", silent: "suspect", unreachable: "away", refused: "away"};
  $("relays").querySelector("tbody").replaceChildren(...report.relays.map(r => {
    const state = el("td", "state is-" + good[r.state], ...signed(good[r.state], r.state));
    const url = el("td", "", hostOf(r.url), r.home ? "" : el("span", "soft", " for peers only"));
    url.title = r.url;
    return el("tr", "", state, url, el("td", "carrier", r.carrier || ""), el("td", "observed", r.observed || ""),
      el("td", "number", r.since ? span(age(r.since)) : ""), el("td", "", el("div", "", r.error || "")));
  }));
}

// The peers. Each has a table body of its own: a row, and its detail if that is open.

function newRow(id) {
  const r = {body: el("tbody"), row: el("tr", "row"), cells: {}, open: false, drawn: ""};
  for (const c of ["state", "peer", "timeline", "up", "path", "rtt", "loss", "last", "now"]) {
    r.cells[c] = el(c === "peer" ? "th" : "td", c + (["up", "rtt", "loss"].includes(c) ? " number" : ""));
  }
  r.cells.peer.scope = "row";
  r.name = el("bdi");
  r.short = el("code");
  r.button = el("button", "", r.name, r.short);
  r.button.type = "button";
  r.button.setAttribute("aria-expanded", "false");
  r.button.addEventListener("click", () => {
    r.open = !r.open;
    showDetail(r);
  });
  r.cells.peer.append(r.button);
  r.row.append(...Object.values(r.cells));
  r.body.append(r.row);
  r.body.dataset.peer = id;
  return r;
}
function fillRow(r, p) {
  const c = r.cells;
  if (r.peer?.state !== p.state) {
    c.state.className = "state is-" + p.state;
    c.state.replaceChildren(...signed(p.state, p.state));
  }
  setText(r.name, p.name || "");
  setText(r.short, p.short);
  const drawn = JSON.stringify(p.runs || []);
  if (r.drawn !== drawn) c.timeline.replaceChildren(draw(p.runs || [], ""));
  r.drawn = drawn;
  c.timeline.firstChild.setAttribute("aria-label", story(p));
  setText(c.up, p.up === undefined ? "" : percent(p.up));
  setText(c.path, p.paths ? via(p.paths[0].kind, p.via) : "");
  setText(c.rtt, ms(p.rtt_ms));
  setText(c.loss, lost(p.loss));
  setText(c.last, lastOutage(p));
  setText(c.now, now(p));
  for (const [cell, title] of [[c.path, p.via], [c.last, p.outage?.why], [c.now, p.error]]) cell.title = title || "";
  r.peer = p;
  r.words = [p.name, p.id, "state:" + p.state, p.state, p.transport_state, p.via, p.doing, p.error, ...(p.addrs || []), ...(p.relays || []),
    ...(p.paths || []).map(x => x.via)].join(" ").toLowerCase();
  if (r.open) showDetail(r);
}
function showDetail(r) {
  r.button.setAttribute("aria-expanded", String(r.open));
  if (!r.open) {
    r.detail?.remove();
    r.detail = undefined;
    return;
  }
  const selection = getSelection();
  if (r.detail && !selection.isCollapsed && selection.containsNode(r.detail, true)) return; // somebody copies from it
  const cell = el("td", "all", ...detailOf(r.peer));
  cell.colSpan = 9;
  const detail = el("tr", "detail", cell);
  r.detail ? r.detail.replaceWith(detail) : r.body.append(detail);
  r.detail = detail;
}
function detailOf(p) {
  const facts = [
    ["ID", p.id],
    ["State", p.state + (MEANING[p.state] === p.state ? "" : ` (${MEANING[p.state]})`) + (p.since ? ` since ${at(p.since)}, for ${span(age(p.since))}` : "")],
    ["Registered", p.registered ? "yes" : "no: it dials this node, or was dialed once"],
    ["Now", next(p)],
    [p.state === "gone" ? "Left because" : "Last error", p.error],
    ["Failed attempts", p.attempts ? String(p.attempts) : ""],
    ["Round trip, loss", p.rtt_ms ? `${ms(p.rtt_ms)}, ${lost(p.loss) || "none"} in the last minute` : ""],
    ["Addresses", (p.addrs || []).join(", ")],
    ["Relays", (p.relays || []).join(", ")],
  ];
  const list = el("dl");
  for (const [term, fact] of facts) if (fact) list.append(el("dt", "", term), el("dd", "", fact));
  return [draw(p.runs || [], story(p)), el("div", "axis", ...axis()), list,
    ...table("Paths", p.paths, ["", "Path", "RTT", "Last heard"], x =>
      [x.active ? "▶ in use" : x.validated ? "answers" : "no answer", via(x.kind, x.via), ms(x.rtt_ms), x.heard ? span(age(x.heard)) + " ago" : ""]),
    ...table("Outages", p.outages, ["Began", "Lasted", "Why"], o =>
      [at(o.from), span(o.seconds) + (o.over ? "" : " so far"), o.why || ""])];
}
function table(title, items, heads, cells) {
  if (!items) return [];
  const row = (kind, texts) => el("tr", "", ...texts.map(t => {
    const c = el(kind, "", t);
    if (kind === "th") c.scope = "col";
    return c;
  }));
  const t = el("table", "", el("thead", "", row("th", heads)), el("tbody", "", ...items.map(i => row("td", cells(i)))));
  t.setAttribute("aria-label", title);
  return [t];
}
function showPeers() {
  const focused = document.activeElement, there = new Set();
  let before = $("peers").tHead;
  for (const p of report.peers) {
    there.add(p.id);
    let r = rows.get(p.id);
    if (!r) rows.set(p.id, r = newRow(p.id));
    fillRow(r, p);
    if (before.nextSibling !== r.body) before.after(r.body);
    before = r.body;
  }
  for (const [id, r] of rows) {
    if (there.has(id)) continue;
    r.body.remove();
    rows.delete(id);
  }
  if (document.activeElement !== focused && focused?.isConnected) focused.focus({preventScroll: true}); // its row was moved
}
function applyFilter() {
  const words = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const r of rows.values()) {
    r.body.hidden = !words.every(w => r.words.includes(w));
    if (!r.body.hidden) shown++;
  }
  setText($("shown"), words.length ? `${shown.toLocaleString()} of ${rows.size.toLocaleString()}` : "");
  $("none").hidden = shown > 0 || rows.size === 0;
  for (const b of $("chips").children) b.setAttribute("aria-pressed", String($("filter").value === "state:" + b.dataset.state));
}
function show(latest) {
  report = latest;
  if (!$("axis").firstChild) $("axis").append(...axis());
  showPeers();
  showRelays();
  showHead();
  applyFilter();
}

// Refreshing. A hidden page asks nothing.

async function refresh() {
  clearTimeout(timer);
  if (document.hidden) return;
  try {
    const url = new URL(location.href); // with what a service in front of the page has put into it
    url.hash = "";
    url.searchParams.set("format", "json");
    const answer = await fetch(url, {cache: "no-store", signal: AbortSignal.timeout(ANSWER_WITHIN)});
    if (!answer.ok) throw new Error(`it says ${answer.status}: ${(await answer.text()).trim().slice(0, 200)}`);
    show(await answer.json());
    failed = undefined;
    $("stale").hidden = true;
    document.body.classList.remove("stale");
  } catch (e) {
    failed ||= Date.now();
    const why = e.message.startsWith("it says") ? e.message : "it does not answer";
    setText($("stale"), `No news from the node for ${span((Date.now() - failed) / 1000)}: ${why}. What is below was so at ${at(report.time)}.`);
    $("stale").hidden = false;
    document.body.classList.add("stale");
  }
  clearTimeout(timer);
  if (!document.hidden) timer = setTimeout(refresh, report.refresh_seconds * 1000);
}

show(JSON.parse($("report").textContent));
for (const [mode, word] of [["direct", "direct"], ["relay", "through a relay"], ["degraded", "degraded"], ["suspect", "silent"], ["away", "away"]]) {
  const mark = svg("svg", {viewBox: "0 0 12 20", "aria-hidden": "true", preserveAspectRatio: "none"}), h = heightOf({mode, away: 1});
  mark.append(svg("rect", {class: mode, x: 0, y: 20 - h, width: 12, height: h}));
  $("legend").append(el("span", "", mark, word));
}
$("filter").addEventListener("input", applyFilter);
$("chips").addEventListener("click", e => {
  const b = e.target.closest("button");
  if (!b) return;
  const wanted = "state:" + b.dataset.state;
  $("filter").value = $("filter").value === wanted ? "" : wanted;
  applyFilter();
});
document.addEventListener("keydown", e => {
  if (e.key !== "/" || e.ctrlKey || e.metaKey || e.altKey || e.target.closest("input")) return;
  e.preventDefault();
  $("filter").focus();
});
document.addEventListener("visibilitychange", refresh);
timer = setTimeout(refresh, report.refresh_seconds * 1000);
