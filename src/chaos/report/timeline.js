"use strict";
// Draws each schedule's timeline from the page's data (chart.py says what a row has). Texts go in as text, never as HTML.
(() => {
  const charts = JSON.parse(document.getElementById("data").textContent);
  const SECOND = 10000, PAPER = 640, ALWAYS = new Set(["fault", "spared", "start", "note", "judged"]);
  const OUTCOMES = {
    done: "✓ done", refused: "✕ refused", lost: "╌ lost", unclear: "? unclear", sent: "→ sent", "": "○ no reply",
  };
  let unique = 0;

  const seconds = (ticks, digits = 3) => (ticks / SECOND).toFixed(digits);
  const number = (n) => n.toLocaleString("en");

  function make(tag, content, name) {
    const node = document.createElement(tag);
    if (name) node.className = name;
    for (const one of [content].flat()) if (one !== undefined && one !== null) node.append(one);
    return node;
  }

  function unpack(data) {
    const text = (n) => (n < 0 ? "" : data.texts[n]);
    const rows = data.rows.map((row, index) => {
      const about = [];
      for (let i = 0; i < row[5].length; i += 2) about.push([row[5][i], row[5][i + 1]]);
      return {
        index, kind: text(row[0]), at: row[1], lane: row[2], what: text(row[3]), service: row[4], about,
        outcome: text(row[6]), until: row[7], faults: text(row[8]), detail: text(row[9]), point: text(row[10]),
        nth: row[11], left: row[12], ends: row[13],
      };
    });
    return { ...data, rows };
  }

  const who = (data, row) => (row.lane < 0 ? "" : data.lanes[row.lane][0]);
  const fault = (row) => [row.what.slice(0, row.what.lastIndexOf(":")), row.what.slice(row.what.lastIndexOf(":") + 1)];

  // What a row says, as [what, the rest].
  function words(data, row, phase) {
    switch (row.kind) {
      case "effect":
        if (phase === "ask") return [`${row.what} asked`, ""];
        return [row.what, phase === "reply" ? `${OUTCOMES[row.outcome] ?? row.outcome}, asked at ${seconds(row.at)}` :
          OUTCOMES[row.outcome] ?? row.outcome];
      case "fault": return [`◆ ${fault(row)[1]}:`, `${row.detail}, at ${fault(row)[0].replace(/^[^/]*\//, "")}`];
      case "spared": return [`${fault(row)[1]} was not carried out`, `at ${fault(row)[0]}: ${row.detail}`];
      case "start": return ["started", `(${row.what})`];
      case "checkpoint": return [`◇ ${row.what}`, ""];
      case "accepted": return ["accepted", "by the system, says the workload"];
      case "judged": return [`judged: ${row.what}`, row.detail];
      default: return [row.what, row.detail];
    }
  }

  function matches(data, row, key, search) {
    if (key >= 0 && !ALWAYS.has(row.kind) && !row.about.some(([one]) => one === key)) return false;
    if (!search) return true;
    const keys = row.about.flatMap(([one]) => [data.keys[one][0], ...data.keys[one][1]]);
    return [who(data, row), ...words(data, row), row.faults, row.point, ...keys].join(" ").toLowerCase().includes(search);
  }

  // An effect is one line, or two where something else lies between it and what became of it.
  function toLines(shown, complete) {
    const marks = [];
    for (const row of shown) {
      marks.push({ at: row.at, row, phase: "ask" });
      if (row.until >= 0) marks.push({ at: row.until, row, phase: "reply" });
    }
    marks.sort((a, b) => a.at - b.at || a.row.index - b.row.index || (a.phase === "ask" ? -1 : 1));
    const lines = [], span = marks.length ? marks[marks.length - 1].at - marks[0].at : 0;
    const pause = Math.max(SECOND / 100, span / 20);
    for (let i = 0; i < marks.length; i++) {
      const mark = marks[i], next = marks[i + 1];
      if (complete && mark.phase === "ask" && mark.row.left)
        lines.push({ pause: `… ${number(mark.row.left)} events are left out here` });
      else if (i && mark.at - marks[i - 1].at >= pause)
        lines.push({ pause: `${number(Math.round((mark.at - marks[i - 1].at) / 10))} ms later` });
      const whole = mark.row.until < 0 || (next && next.row === mark.row);
      lines.push({ ...mark, phase: whole && mark.phase === "ask" ? "whole" : mark.phase });
      if (whole && next && next.row === mark.row) i++;
    }
    return lines;
  }

  function layout(data, lines, width) {
    const used = new Set();
    for (const { row } of lines) if (row) for (const lane of [row.lane, row.service]) if (lane >= 0) used.add(lane);
    for (const lane of [...used]) if (data.lanes[lane][2] >= 0) used.add(data.lanes[lane][2]);
    const lanes = [...used].sort((a, b) => a - b), wide = width > 640;
    const time = wide ? 70 : 46, share = wide ? 0.58 : 0.44;
    const longest = Math.max(0, ...lanes.map((lane) => data.lanes[lane][0].length)) * 7.4 + 14;
    const step = Math.max(14, Math.min(Math.max(longest, 84), (width * share - time) / Math.max(1, lanes.length)));
    const x = new Map(lanes.map((lane, i) => [lane, (i + 0.5) * step]));
    const tall = wide ? 26 : 54, middles = [];
    let height = 0;
    for (const { pause } of lines) {
      middles.push(height + (pause ? 24 : tall) / 2);
      height += pause ? 24 : tall;
    }
    return { lanes, time, tall, middles, height, x, width: lanes.length * step, level: step >= longest, longest };
  }

  function header(data, place) {
    const height = place.level ? 30 : Math.min(150, place.longest + 10);
    const texts = place.lanes.map((lane) => {
      const [name, kind] = data.lanes[lane], x = place.time + place.x.get(lane);
      const at = place.level ? `x="${x}" y="20" text-anchor="middle"` : `transform="translate(${x + 4} ${height - 6}) rotate(-90)"`;
      return [`<text ${at} fill="currentColor" class="${kind ? "service" : "worker"}"></text>`, name];
    });
    const svg = graphic(place.time + place.width + 4, height, texts.map(([one]) => one).join(""));
    svg.querySelectorAll("text").forEach((node, i) => { node.textContent = texts[i][1]; });
    svg.classList.add("lanes");
    svg.style.width = "100%";
    return svg;
  }

  function graphic(width, height, inside) {
    const holder = document.createElement("div");
    holder.innerHTML = `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" aria-hidden="true">${inside}</svg>`;
    return holder.firstChild;
  }

  const arrow = (x, y, way, fill) =>
    `<path d="M${x - 7 * way} ${y - 4.5}L${x} ${y}L${x - 7 * way} ${y + 4.5}${fill ? "Z" : ""}" fill="${fill ? "currentColor" : "none"}" stroke="currentColor" stroke-width="1.5"/>`;
  const cross = (x, y) => `<path d="M${x - 5} ${y - 5}l10 10m0 -10l-10 10" stroke="var(--bad)" stroke-width="2.5"/>`;
  const diamond = (x, y, size, fill, edge = "var(--paper)") =>
    `<path d="M${x} ${y - size}L${x + size} ${y}L${x} ${y + size}L${x - size} ${y}Z" fill="${fill}" stroke="${edge}" stroke-width="1.5"/>`;

  function effect(row, phase, x, y) {
    const from = x.get(row.lane), to = x.get(row.service), way = to > from ? 1 : -1, end = to - 3 * way;
    const half = (from + to) / 2, silent = row.outcome === "" && phase === "whole";
    const lost = row.outcome === "lost" && phase === "whole", stopped = silent && row.faults;
    const dash = phase === "reply" || lost || silent ? ' stroke-dasharray="4 4"' : "";
    const line = (a, b) => `<line x1="${a}" y1="${y}" x2="${b}" y2="${y}" stroke="currentColor" stroke-width="1.5"${dash}/>`;
    const dot = `<circle cx="${from}" cy="${y}" r="3.5" fill="var(--worker)"/>`;
    if (phase === "reply") return line(end, from + 4 * way) + arrow(from + 4 * way, y, -way, true);
    const body = lost ? line(from, half) + cross(half, y) : line(from, stopped ? half : end);
    const head = lost ? "" : phase === "ask" || row.outcome === "sent" ? arrow(end, y, way, false) :
      row.outcome === "refused" ? cross(to, y) :
      row.outcome === "" ? `<circle cx="${stopped ? half : to}" cy="${y}" r="4.5" fill="var(--paper)" stroke="currentColor" stroke-width="1.5"/>` :
      row.outcome === "unclear" ? `<text x="${to}" y="${y + 5}" text-anchor="middle" font-weight="700" fill="currentColor">?</text>` :
      arrow(end, y, way, true);
    return body + head + (row.faults ? diamond(from, y, 7, "var(--bad)") : dot);
  }

  // The lanes themselves: a process lives from its start to what ended it, and the hatched band is the time without it.
  function lifelines(data, lines, place, hatch) {
    const { middles, height } = place, first = new Map(), last = new Map();
    lines.forEach(({ row, phase }, n) => {
      if (!row || row.lane < 0) return;
      if (!first.has(row.lane)) first.set(row.lane, middles[n]);
      if (row.ends && phase !== "reply") last.set(row.lane, middles[n]);
    });
    let drawn = "";
    for (const lane of place.lanes) {
      const x = place.x.get(lane), [, kind, before] = data.lanes[lane];
      if (kind) { drawn += `<rect x="${x - 3}" y="0" width="6" height="${height}" fill="var(--service)" opacity=".22"/>`; continue; }
      const top = before >= 0 && first.has(lane) ? first.get(lane) : 0, bottom = last.get(lane) ?? height;
      drawn += `<line x1="${x}" y1="${top}" x2="${x}" y2="${bottom}" stroke="var(--worker)" stroke-width="3" opacity=".55"/>`;
      if (before >= 0 && last.has(before) && top > last.get(before)) {
        const left = place.x.get(before) - 6;
        drawn += `<rect x="${left}" y="${last.get(before)}" width="${x - left + 6}" height="${top - last.get(before)}" fill="url(#${hatch})"/>`;
      } else if (last.has(lane) && !place.lanes.some((one) => data.lanes[one][2] === lane)) {
        drawn += `<rect x="${x - 6}" y="${bottom}" width="12" height="${height - bottom}" fill="url(#${hatch})"/>`;
      }
    }
    return drawn;
  }

  function graph(data, lines, place) {
    const hatch = `hatch-${unique++}`, parts = [];
    lines.forEach(({ row, phase }, n) => {
      if (!row || !(place.x.has(row.lane))) return;
      const x = place.x.get(row.lane), y = place.middles[n];
      if (row.kind === "effect") parts.push(effect(row, phase, place.x, y));
      else if (row.kind === "fault") parts.push(diamond(x, y, 9, "var(--bad)"));
      else if (row.kind === "start") parts.push(`<circle cx="${x}" cy="${y}" r="6" fill="var(--good)" stroke="var(--paper)"/>`);
      else parts.push(diamond(x, y, 6, "var(--paper)", "currentColor"));
    });
    const defs = `<defs><pattern id="${hatch}" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><rect width="6" height="6" fill="var(--bad)" opacity=".12"/><rect width="2" height="6" fill="var(--bad)" opacity=".55"/></pattern></defs>`;
    const svg = graphic(place.width, place.height, defs + lifelines(data, lines, place, hatch) + parts.join(""));
    svg.classList.add("graph");
    svg.style.left = `${place.time}px`;
    return svg;
  }

  function item(data, line, place) {
    const { row, phase } = line, node = make("li");
    const space = make("span", "", "space");
    space.style.width = `${place.width + 10}px`;
    const at = make("span", row ? seconds(line.at) : "", "at"), said = make("span", row ? [] : line.pause, "said");
    at.style.width = `${place.time}px`;
    node.style.height = `${row ? place.tall : 24}px`;
    node.append(at, space, said);
    if (!row) { node.className = "pause"; return node; }
    const [what, more] = words(data, row, phase), name = who(data, row);
    const hit = row.about.some(([key]) => data.keys[key][2]);
    node.className = `${row.kind}${hit && row.kind !== "fault" ? " hit" : ""}`;
    node.dataset.row = row.index;
    node.tabIndex = -1;
    if (name) said.append(make("b", name, "worker"), " ");
    said.append(what, " ");
    if (row.kind === "effect") said.append(`${more} `);
    if (row.faults && phase !== "reply") said.append(make("span", `◆ ${row.faults} `, "then"));
    for (const [key] of row.about.slice(0, 3))
      said.append(make("span", `${data.keys[key][0]}${data.keys[key][2] ? " ✘" : ""}`, `key${data.keys[key][2] ? " bad" : ""}`), " ");
    if (row.about.length > 3) said.append(`and ${row.about.length - 3} more keys `);
    if (row.kind !== "effect") said.append(more);
    return node;
  }

  function facts(data, row) {
    const list = [["when", `${seconds(row.at, 4)} s after the drill began`]];
    const [what, more] = words(data, row);
    list.push(["what", [who(data, row), what, more].filter(Boolean).join(" ")]);
    if (row.until >= 0) list.push(["reply", `${seconds(row.until, 4)} s, after ${((row.until - row.at) / 10).toFixed(1)} ms`]);
    if (row.faults) list.push(["broken by", row.faults]);
    if (row.point) {
      const names = row.about.filter(([, nth]) => nth).map(([key, nth]) => `${row.point}[${data.keys[key][0]}]#${nth}`);
      list.push([names.length ? "names" : "name", [`${row.point}#${row.nth}`, ...names].join(" = ")]);
    }
    for (const [key] of row.about) list.push([data.keys[key][0], data.keys[key][1].join(", ") || "–"]);
    return make("dl", list.slice(0, 12).flatMap(([name, value]) => [make("dt", name), make("dd", value)]));
  }

  function table(data) {
    const names = ["seconds", "process", "what", "about", "outcome", "more"];
    const body = data.rows.map((row) => {
      const [what, more] = words(data, row), outcome = row.kind === "effect";
      const about = row.about.map(([key]) => data.keys[key][0]).join(", ");
      const cells = [seconds(row.at), who(data, row), what, about, outcome ? more : "", outcome ? row.faults : more];
      return make("tr", cells.map((one) => make("td", one)));
    });
    return make("table", [make("thead", make("tr", names.map((one) => make("th", one)))), make("tbody", body)]);
  }

  function choices(data) {
    const keys = make("select", make("option", `all ${number(data.keys.length)} keys here`));
    keys.options[0].value = "-1";
    data.keys.forEach(([alias, , bad], n) => {
      const option = make("option", bad ? `${alias} ✘ violates` : alias);
      option.value = n;
      keys.append(option);
    });
    if (data.keys.some(([, , bad]) => bad)) keys.value = "0";
    return keys;
  }

  // What a timeline consists of, on the page.
  function furnish(place, data) {
    const keys = choices(data), search = make("input"), count = make("p", "", "count");
    const board = make("div", [], "board"), detail = make("div", [], "facts-of");
    search.type = "search";
    search.placeholder = "http.post, payment~1, an id …";
    count.setAttribute("role", "status");
    detail.textContent = "Point at a row, or go through the rows with the arrow keys, to see all that is known of it.";
    const all = make("details", make("summary", `The ${number(data.rows.length)} rows as a table`), "events");
    all.addEventListener("toggle", () => { if (all.open && !all.querySelector("table")) all.append(table(data)); });
    const tools = make("div", [make("label", ["Key", keys]), make("label", ["Search", search])], "tools");
    place.replaceChildren(make("h4", "Timeline"), tools, count, board, detail, all);
    return { keys, search, count, board, detail };
  }

  function draw(data, { keys, search, count, board }, wide) {
    const key = Number(keys.value), text = search.value.trim().toLowerCase(), complete = key < 0 && !text;
    const shown = data.rows.filter((row) => matches(data, row, key, text));
    const lines = toLines(shown, complete);
    if (complete && data.rest) lines.push({ pause: `… ${number(data.rest)} events are left out here` });
    const place = layout(data, lines, wide || board.clientWidth || 800);
    const list = make("ol", lines.map((line) => item(data, line, place)), "rows");
    list.setAttribute("aria-label", "events in order");
    list.style.setProperty("--lines", place.tall > 40 ? 3 : 1);
    board.replaceChildren(header(data, place), make("div", [graph(data, lines, place), list], "field"));
    const first = list.querySelector("li[data-row]");
    if (first) first.tabIndex = 0;
    const broke = complete && list.querySelector("li.fault");  // of thousands of rows, those around it are looked for
    board.scrollTop = broke ? broke.offsetTop - board.clientHeight / 2 : 0;
    const part = data.shown < data.all ? ` The page has ${number(data.shown)} of ${number(data.all)} events: first faults and restarts, then what is about violating keys, then what is nearest to those.` : "";
    count.textContent = `Showing ${number(shown.length)} of ${number(data.rows.length)} rows.${part}`;
  }

  function walk(board, event) {
    const nodes = [...board.querySelectorAll("li[data-row]")], now = nodes.indexOf(document.activeElement);
    const to = { ArrowDown: now + 1, ArrowUp: now - 1, Home: 0, End: nodes.length - 1 }[event.key];
    if (to === undefined || !nodes[to]) return;
    event.preventDefault();
    if (nodes[now]) nodes[now].tabIndex = -1;
    nodes[to].tabIndex = 0;
    nodes[to].focus();
  }

  function start(place) {
    const data = unpack(charts[Number(place.dataset.chart)]), view = furnish(place, data), { board } = view;
    const redraw = (wide) => draw(data, view, wide);
    const pick = (node) => {
      if (!node || node.classList.contains("picked")) return;
      board.querySelectorAll(".picked").forEach((one) => one.classList.remove("picked"));
      node.classList.add("picked");
      view.detail.replaceChildren(facts(data, data.rows[Number(node.dataset.row)]));
    };
    for (const kind of ["mouseover", "focusin", "click"])
      board.addEventListener(kind, (event) => pick(event.target.closest("li[data-row]")));
    board.addEventListener("keydown", (event) => walk(board, event));
    view.keys.addEventListener("change", () => redraw());
    view.search.addEventListener("input", () => redraw());
    window.addEventListener("beforeprint", () => redraw(PAPER));
    window.addEventListener("afterprint", () => redraw());
    let width = 0;
    new ResizeObserver(() => {
      if (board.clientWidth === width) return;
      width = board.clientWidth;
      requestAnimationFrame(() => redraw());
    }).observe(board);
  }

  const begin = (within) => {
    for (const place of within.querySelectorAll(".chart[data-chart]"))
      if (!place.dataset.begun && place.closest("details").open) { place.dataset.begun = "1"; start(place); }
  };
  document.addEventListener("toggle", (event) => { if (event.target.open) begin(event.target); }, true);
  begin(document);
})();
