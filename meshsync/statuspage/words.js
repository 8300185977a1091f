"use strict";
// What a report says, in words and drawings. page.js, which follows in the same script, has the page.

let report; // the latest
const SIGNS = {away: "✕", suspect: "?", degraded: "▲", connecting: "…", gone: "○", relay: "◐", direct: "●"};
const MEANING = {
  away: "away", suspect: "silent on every path", degraded: "slow or losing packets", connecting: "not reached yet",
  gone: "left, not registered", relay: "through a relay", direct: "direct",
};
// How tall a slot of a timeline is drawn, of 20: what is good is low and quiet, trouble stands out, in grey as well.
const HEIGHT = {direct: 4, relay: 7, degraded: 11, suspect: 13};
const heightOf = run => run.mode === "away" ? 14 + 6 * (run.away || 0) : HEIGHT[run.mode] || 0;

// Words.

const time = s => new Date(s);
const age = s => (time(report.time) - time(s)) / 1000;
function span(seconds) {
  const s = Math.max(0, seconds);
  if (s < 9.95) return (Math.round(s * 10) / 10) + " s";
  if (s < 119.5) return Math.round(s) + " s";
  if (s < 7170) return Math.round(s / 60) + " min";
  if (s < 172800) return Math.round(s / 360) / 10 + " h";
  return Math.round(s / 86400) + " d";
}
function at(s) {
  const t = time(s), day = t.toDateString() === time(report.time).toDateString() ? {} : {month: "short", day: "numeric"};
  return t.toLocaleTimeString([], {...day, hourCycle: "h23", hour: "2-digit", minute: "2-digit", second: "2-digit"});
}
const ms = v => v ? (v < 9.95 ? v.toFixed(1) : Math.round(v)) + " ms" : "";
const percent = v => v === 1 ? "100%" : (v * 100).toFixed(2) + "%";
const lost = v => v ? (v * 100).toFixed(v < .1 ? 1 : 0) + "%" : "";
const nameOf = p => p.name || p.short;
// hostOf leaves out the 64 digits of the ID that a relay's URL can have.
const hostOf = url => url.replace(/^relay:\/\/([0-9a-f]+@)?/, "");
const via = (kind, where) => kind === "relay" ? "relay " + hostOf(where) : where;
const next = p => p.doing && p.next ? p.doing + (age(p.next) < 0 ? " in " + span(-age(p.next)) : " now") : p.doing || "";

function now(p) {
  if (p.state === "gone") return "left " + span(age(p.since)) + " ago";
  if (next(p)) return next(p);
  return p.since ? "connected for " + span(age(p.since)) : "";
}
function lastOutage(p) {
  const o = p.outage;
  if (!o) return "";
  return o.over ? `${span(age(o.from) - o.seconds)} ago, for ${span(o.seconds)}` : `now, for ${span(o.seconds)}` + (o.why ? ": " + o.why : "");
}
function story(p) { // what a timeline shows, for those who do not see it
  const up = p.up === undefined ? "" : percent(p.up) + " up";
  return ["Timeline of " + nameOf(p), up, p.outage ? "last outage " + lastOutage(p) : "no outage"].filter(Boolean).join(", ");
}

// Elements.

function el(name, className, ...children) {
  const e = document.createElement(name);
  if (className) e.className = className;
  e.append(...children.filter(c => c !== undefined && c !== ""));
  return e;
}
function setText(e, text) { if (e.textContent !== text) e.textContent = text; }
function svg(name, attributes) {
  const e = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v);
  return e;
}
function draw(runs, label) {
  const s = svg("svg", {viewBox: `0 0 ${report.timeline.slots} 20`, preserveAspectRatio: "none", role: "img", "aria-label": label, "shape-rendering": "crispEdges"});
  let x = 0;
  s.append(svg("rect", {class: "ground", x: 0, y: 19, width: report.timeline.slots, height: 1}));
  for (const run of runs) {
    const h = heightOf(run);
    if (h) s.append(svg("rect", {class: run.mode, x, y: 20 - h, width: run.slots, height: h}));
    x += run.slots;
  }
  return s;
}
function signed(state, word) { return [el("span", "sign", SIGNS[state]), el("span", "word", word)]; }
function axis() {
  const hours = report.timeline.slots * report.timeline.slot_seconds / 3600, marks = [];
  for (let h = hours; h > 0; h -= 2) marks.push(el("span", "", h + " h"));
  return [...marks, el("span", "", "now")];
}
