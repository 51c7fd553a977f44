"use strict";
// Shows the JSON block. Text of the evidence reaches the page only as text nodes.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const MORE = { indicators: 100, reports: 60, rows: 100 };
  const FIRST_INDICATORS = 12;
  const IN_PRINT = 1000;
  const VERDICTS = ["not malicious", "malicious", "no verdict"];
  const SEEN = {
    clicksPermitted: ["click permitted", "clicks permitted"],
    messagesDelivered: ["delivered", "delivered"],
    messagesBlocked: ["blocked", "blocked"],
    clicksBlocked: ["click blocked", "clicks blocked"],
  };
  // A Map, because the name of a campaign may be one that every object has.
  const campaigns = new Map(Object.entries(data.campaigns));
  const byId = (id) => document.getElementById(id);
  const count = (number) => number.toLocaleString("en");

  const make = (tag, name, ...children) => {
    const element = document.createElement(tag);
    if (name) element.className = name;
    element.append(...children);
    return element;
  };
  // An element with its own text direction, so that no text can reverse its neighbours.
  const foreign = (name, text) => make("bdi", name, text);

  // The search treats typed, pasted and defanged text alike.
  const plain = (text) =>
    text.toLowerCase().replace(/\[([.:])\]/g, "$1").replace(/hxxp/g, "http");
  const words = (row, from) => row.slice(from).filter((_, at) => at % 2).join("\n");
  const haystack = (report) =>
    plain([report.id, report.name, report.status, report.classification, report.campaign,
      ...Object.values(report.summary),
      campaigns.get(report.campaign) || "",
      ...report.rows.map((row) => `${data.words[row[0]]} ${data.words[row[3]]} ${words(row, 4)}`)].join("\n"));
  const searched = (item, text) => (item.hay ??= text(item));

  const wanted = { terms: [], status: "", only: false, kind: "" };
  const matches = (hay) => wanted.terms.every((term) => hay.includes(term));
  const reportFits = (report) =>
    (!wanted.status || report.status === wanted.status) &&
    (!wanted.only || report.malicious > 0) && matches(searched(report, haystack));
  const indicators = data.indicators.map(([kind, value, shown, reports, foundIn]) =>
    ({ kind, value, shown: shown || value, reports, foundIn }));
  const indicatorFits = (one) =>
    matches(searched(one, () => `${plain(one.value)}\n${plain(one.shown)}\n${one.kind}`));

  // A list that grows on demand: only visible items become elements.
  const growing = (list, button, step, element) => {
    let items = [], shown = 0;
    const grow = (by) => {
      list.append(...items.slice(shown, shown + by).map(element));
      shown = Math.min(items.length, shown + by);
      button.hidden = shown >= items.length;
      button.textContent = `Show more (${count(items.length - shown)} left)`;
    };
    button.addEventListener("click", () => grow(step));
    return {
      grow,
      show: (all, first) => { items = all; shown = 0; list.replaceChildren(); grow(first); },
    };
  };

  const copied = async (button, text) => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // Some browsers refuse the clipboard to a page opened from a disk.
      const area = make("textarea", "unseen");
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    const label = button.dataset.label ??= button.textContent;
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = label; }, 1200);
  };
  const toCopy = (one) => (byId("safe").checked ? one.shown : one.value);

  const saved = (name, type, text) => {
    const link = make("a", "");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };

  const seek = (text) => {
    byId("query").value = text;
    update();
    byId("reports").scrollIntoView();
  };
  const button = (label, name, action) => {
    const made = make("button", name, label);
    made.type = "button";
    made.addEventListener("click", (event) => { event.preventDefault(); action(made); });
    return made;
  };

  const indicatorRow = (one) => {
    const many = one.reports.length;
    const copy = button("Copy", "small", (made) => copied(made, toCopy(one)));
    copy.setAttribute("aria-label", `Copy ${one.kind} ${one.shown}`);
    const seeker = button(`${count(many)} ${many === 1 ? "report" : "reports"}`, "small quiet", () => seek(one.value));
    seeker.title = "Show these reports";
    return make("tr", "", make("td", "kind", one.kind), make("td", "", foreign("mono", one.shown)),
      make("td", "soft", foreign("", one.foundIn)), make("td", "number", seeker), make("td", "number", copy));
  };

  const evidenceRow = (row) => {
    const told = [];
    for (let at = 4; at < row.length; at += 2) {
      const [name, text] = [foreign("name", data.words[row[at]]), foreign("mono", row[at + 1])];
      told.push(make("span", "pair", name, " ", text), " ");
    }
    const hit = wanted.terms.length > 0 && matches(plain(`${data.words[row[0]]} ${words(row, 4)}`));
    return make("tr", `verdict-${row[1]}${hit ? " hit" : ""}`,
      make("td", "verdict", VERDICTS[row[1]]), make("td", "kind", foreign("", data.words[row[0]])),
      make("td", "told", ...told),
      make("td", "soft", foreign("", [data.words[row[2]], data.words[row[3]]].filter(Boolean).join(" · "))));
  };

  const evidence = (report) => {
    const body = make("tbody", "");
    const head = make("tr", "", ...["Verdict", "Type", "Evidence", "Engine · platform"].map((label) => {
      const cell = make("th", "", label);
      cell.scope = "col";
      return cell;
    }));
    const more = make("button", "more");
    more.type = "button";
    growing(body, more, MORE.rows, evidenceRow).show(report.rows, MORE.rows);
    const left = report.total - report.rows.length;
    const scope = make("span", "name", report.is_campaign ? "campaign" : "threat");
    const about = Object.entries(report.summary).filter(([, text]) => text).flatMap(([name, text]) =>
      [make("span", "pair", make("span", "name", name), " ", foreign("", text)), " "]);
    return make("div", "evidence",
      make("p", "ids", scope, " ", foreign("mono", report.id)),
      ...(about.length ? [make("p", "about", ...about)] : []),
      make("table", "list", make("thead", "", head), body), more,
      ...(left > 0 ? [make("p", "hint", `${count(left)} more items are not in this page.`)] : []));
  };

  const facts = (report) => {
    const told = [];
    if (report.status) told.push(foreign(report.status === "active" ? "pill active" : "pill", report.status));
    if (report.summary.severity) told.push(foreign("", `severity ${report.summary.severity}`));
    if (report.classification) told.push(foreign("", report.classification));
    for (const [kind, [one, many]] of Object.entries(SEEN)) {
      const seen = report.seen[kind];
      const warn = kind === "clicksPermitted" ? "warn" : "";
      if (seen) told.push(make("span", warn, `${count(seen)} ${seen === 1 ? one : many}`));
    }
    if (report.campaign && !report.is_campaign) {
      const link = button("", "small quiet", () => seek(report.campaign));
      link.append(foreign("", campaigns.get(report.campaign) || `campaign ${report.campaign}`));
      link.title = "Show this campaign";
      told.push(link);
    }
    if (report.generated) told.push(make("time", "", report.generated.replace("T", " ")));
    return told;
  };

  const reportBlock = (report) => {
    const badge = report.malicious
      ? make("span", "badge bad", `${count(report.malicious)} malicious`)
      : make("span", "badge", `${count(report.total)} items`);
    const scope = report.is_campaign ? [make("span", "scope", "Campaign")] : [];
    const summary = make("summary", "", badge,
      make("span", "title", ...scope, foreign("mono", report.name)), make("span", "facts", ...facts(report)));
    const block = make("details", "report", summary);
    block.addEventListener("toggle", () => {
      if (block.open && block.childElementCount === 1) block.append(evidence(report));
    });
    return block;
  };

  const indicatorList = growing(byId("indicator-rows"), byId("more-indicators"), MORE.indicators, indicatorRow);
  const reportList = growing(byId("report-list"), byId("more-reports"), MORE.reports, reportBlock);
  let shownIndicators = [];

  const tabs = (fitting) => {
    const counts = new Map();
    for (const one of fitting) counts.set(one.kind, (counts.get(one.kind) || 0) + 1);
    if (wanted.kind && !counts.has(wanted.kind)) counts.set(wanted.kind, 0);
    const tab = (kind, number) => {
      const made = button(`${kind || "all"} ${count(number)}`, "", () => {
        wanted.kind = kind;
        update();
        byId("kinds").querySelector("[aria-pressed=true]").focus();
      });
      made.setAttribute("aria-pressed", String(wanted.kind === kind));
      return made;
    };
    const all = [["", fitting.length], ...counts];
    byId("kinds").replaceChildren(...all.map(([kind, number]) => tab(kind, number)));
  };

  const update = () => {
    wanted.terms = plain(byId("query").value).split(/\s+/).filter(Boolean);
    wanted.status = byId("status").value;
    wanted.only = byId("only").checked;
    const reports = data.reports.filter(reportFits);
    const fitting = indicators.filter(indicatorFits);
    shownIndicators = fitting.filter((one) => !wanted.kind || one.kind === wanted.kind);
    tabs(fitting);
    indicatorList.show(shownIndicators, FIRST_INDICATORS);
    reportList.show(reports, MORE.reports);
    byId("no-reports").hidden = reports.length > 0;
    byId("no-indicators").hidden = shownIndicators.length > 0 || indicators.length === 0;
    byId("found").textContent =
      `${count(reports.length)} of ${count(data.reports.length)} reports, ${count(fitting.length)} indicators`;
  };

  for (const status of new Set(data.reports.map((report) => report.status).filter(Boolean))) {
    byId("status").append(make("option", "", status));
  }
  byId("query").addEventListener("input", update);
  for (const id of ["status", "only"]) byId(id).addEventListener("change", update);
  const act = (id, action) => byId(id).addEventListener("click", (event) => action(event.currentTarget));
  act("copy-all", (made) => copied(made, shownIndicators.map(toCopy).join("\n")));
  act("save-csv", () => saved("tap-indicators.csv", "text/csv", data.csv));
  act("save-stix", () => saved("tap-indicators.stix.json", "application/stix+json;version=2.1", data.stix));
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && !/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) {
      event.preventDefault();
      byId("query").focus();
    }
  });
  // On paper nobody can press "Show more".
  addEventListener("beforeprint", () => { indicatorList.grow(IN_PRINT); reportList.grow(IN_PRINT); });
  if ("IntersectionObserver" in window) {
    const grow = ([seen]) => seen.isIntersecting && reportList.grow(MORE.reports);
    new IntersectionObserver(grow, { rootMargin: "600px" }).observe(byId("more-reports"));
  }
  document.querySelector(".live").hidden = false;
  update();
})();
