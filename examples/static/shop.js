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
  forget: (goods) => localStorage.removeItem(wish.name(goods)),
};

// Sends a form; while the shop cannot be reached or is too busy, again and again with the same key.
async function send(form, body, message) {
  for (let wait = 0.5; ; wait = Math.min(wait * 2, 8)) {
    try {
      const answer = await fetch(form.action, { method: "POST", body, headers: { Accept: "application/json" } });
      if (answer.status !== 503) return answer;
      say(message, "Many people are here. Trying again with the same order …");
    } catch {
      say(message, "The connection is lost. Trying again with the same order …");
    }
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
      ADMITTED: `On sale: ${view.remaining} left.`,
      SOLD_OUT: view.may_return ? "Sold out. Some orders are not paid yet: one may return." : "Sold out.",
      PAUSED: "The sale is paused for a moment.",
      ENDED: "The sale has ended.",
    };
    say($("state"), words[view.state]);
    $("clock").textContent = soon && opensIn !== null ? countdown(opensIn) : "";
    button.disabled = buying || !(view.state === "ADMITTED" || (view.state === "SOLD_OUT" && view.may_return));
    return opensIn;
  }

  async function look() {
    for (;;) {
      try {
        const began = Date.now();
        const answer = await fetch(page.dataset.fragment);
        if (answer.ok) {
          view = await answer.json();
          ahead = view.now - (began + Date.now()) / 2000;
        }
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
      const said = await answer.json();
      if (answer.status === 202) {
        window.location.assign(answer.headers.get("Location"));
        return;
      }
      say(message, said.detail ?? said.title);
    } finally {
      buying = false;
      show();
    }
  });

  if (localStorage.getItem(wish.name(page.dataset.goods))) button.textContent = "Buy now, or see your order";
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
      state.dataset.state = order.state;
      $("pay").disabled = !order.may_pay;
      $("cancel").disabled = !order.may_cancel;
      if (order.released) wish.forget(page.dataset.goods);
    } catch {
      // Offline: what was last known stays.
    }
  }

  for (const form of document.querySelectorAll("form")) {
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const answer = await send(form, new URLSearchParams(), message);
      say(message, answer.ok ? "" : (await answer.json()).title);
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
