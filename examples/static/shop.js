// The shop's two pages: the product with its countdown and button, and the order. Plain JavaScript, no framework.
"use strict";

const $ = (id) => document.getElementById(id);
const sleep = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));

function say(element, text) {
  if (element.textContent !== text) element.textContent = text; // a screen reader speaks only when it changes
}

// One wish, one key: a double click, a reload and a lost connection repeat the same order.
const wish = {
  name: (goods) => `wish:${goods}`,
  key(goods) {
    const name = wish.name(goods);
    if (!localStorage.getItem(name)) {
      const bytes = crypto.getRandomValues(new Uint8Array(16));
      localStorage.setItem(name, Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join(""));
    }
    return localStorage.getItem(name);
  },
  forget(goods) {
    localStorage.removeItem(wish.name(goods));
    localStorage.removeItem("order");
  },
};

// What the problems of the shop mean for a visitor, by the end of their type; of the others, their title is shown.
const PROBLEMS = {
  "limit-reached": "You have one already: there is one per person.",
  overloaded: "Many people are here.",
  unavailable: "The shop cannot be reached just now.",
};

async function problem(answer) {
  const said = await answer.json().catch(() => ({})); // a proxy answers in HTML
  return PROBLEMS[said.type?.split("/").pop()] ?? said.title ?? PROBLEMS.unavailable;
}

// Sends a form; while the shop cannot be reached or is too busy, again and again with the same key.
async function send(form, body, message) {
  for (let wait = 0.5; ; wait = Math.min(wait * 2, 8)) {
    let why = "The connection is lost.";
    try {
      const answer = await fetch(form.action, { method: "POST", body, headers: { Accept: "application/json" } });
      if (![502, 503, 504].includes(answer.status)) return answer;
      why = await problem(answer);
    } catch {
      // Nothing was heard; perhaps the order was placed.
    }
    say(message, `${why} Trying again with the same order …`);
    await sleep(wait * (0.5 + Math.random()));
  }
}

function countdown(seconds) {
  const whole = Math.max(0, Math.ceil(seconds));
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  const pair = (number) => String(number).padStart(2, "0");
  return `${hours ? `${hours}:` : ""}${pair(minutes)}:${pair(whole % 60)}`;
}

function productPage(page) {
  const [form, message] = [$("buy"), $("message")];
  const button = form.querySelector("button");
  let view = null; // the last fragment
  let ahead = 0; // seconds by which the server's clock is ahead of ours
  let buying = false;

  function show() {
    if (!view) return;
    const opensIn = view.opens_at === null ? null : view.opens_at - (Date.now() / 1000 + ahead);
    const soon = view.state === "NOT_STARTED";
    const words = {
      NOT_STARTED: opensIn === null ? "The sale has not started yet." : "The sale starts in",
      ADMITTED: "On sale now:",
      SOLD_OUT: view.may_return ? "Sold out. Some orders are not paid yet: one may return." : "Sold out.",
      PAUSED: "The sale is paused for a moment.",
      ENDED: "The sale has ended.",
      CLOSED: "The shop cannot be reached just now. This page keeps trying.",
    };
    say($("state"), words[view.state]);
    const figure = ["ENDED", "CLOSED"].includes(view.state) ? "" : `${view.remaining} left`;
    $("figure").textContent = soon && opensIn !== null ? countdown(opensIn) : figure; // changes too often to be read out
    button.disabled = buying || !(view.state === "ADMITTED" || (view.state === "SOLD_OUT" && view.may_return));
    return opensIn;
  }

  async function look() {
    for (;;) {
      try {
        const began = Date.now();
        const answer = await fetch(page.dataset.fragment, { headers: { Accept: "application/json" } });
        view = answer.ok ? await answer.json() : { state: "CLOSED", opens_at: null };
        if (answer.ok) ahead = view.now - (began + Date.now()) / 2000;
      } catch {
        // Offline: the clock goes on, and the next look may succeed.
      }
      const opensIn = show();
      const far = view?.state === "NOT_STARTED" && opensIn > 15;
      await sleep((far ? 10 : 1) * (0.75 + Math.random() / 2));
    }
  }

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (buying) return;
    buying = button.disabled = true;
    say(message, "");
    try {
      const body = new URLSearchParams({ key: wish.key(page.dataset.goods) });
      const answer = await send(form, body, message);
      if (answer.status === 202) {
        localStorage.setItem("order", answer.headers.get("Location"));
        window.location.assign(answer.headers.get("Location"));
        return;
      }
      say(message, await problem(answer));
    } finally {
      buying = false;
      show();
    }
  });

  if (localStorage.getItem("order")) {
    $("mine").href = localStorage.getItem("order");
    $("mine").hidden = false;
  }
  setInterval(show, 250);
  look();
}

function orderPage(page) {
  const [state, message] = [$("state"), $("message")];
  const url = `/orders/${page.dataset.order}`;

  async function look() {
    try {
      const answer = await fetch(url, { headers: { Accept: "application/json" } });
      if (!answer.ok) return;
      const order = await answer.json();
      say(state, order.said);
      $("pay").disabled = !order.may_pay;
      $("cancel").disabled = !order.may_cancel;
      if (order.released) wish.forget(page.dataset.goods); // one may buy anew
    } catch {
      // Offline: what was last known stays.
    }
  }

  for (const form of document.querySelectorAll("form")) {
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const answer = await send(form, new URLSearchParams(), message);
      say(message, answer.ok ? "" : await problem(answer));
      look();
    });
  }
  (async () => {
    for (;;) {
      await look();
      await sleep(1);
    }
  })();
}

if ($("product")) productPage($("product"));
if ($("order")) orderPage($("order"));
