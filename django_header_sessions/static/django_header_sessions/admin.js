"use strict";
// Copies ids, refreshes the list where its address asks for it, and goes on with work that takes
// several requests. All pages work without.
{
    const parts = ["header-sessions-figures", "header-sessions-list"];

    function copyable() {
        document.querySelectorAll("[data-copy]").forEach((button) => {
            button.hidden = false;
            const text = button.textContent;
            const copied = document.getElementById(button.dataset.copy);
            button.addEventListener("click", async () => {
                if (navigator.clipboard) {
                    await navigator.clipboard.writeText(copied.textContent);
                } else {
                    // Without HTTPS there is no clipboard but the old one.
                    getSelection().selectAllChildren(copied);
                    document.execCommand("copy");
                }
                button.textContent = "✓";
                setTimeout(() => { button.textContent = text; }, 1500);
            });
        });
    }

    function busy() {
        // Whoever is choosing sessions must not see them move.
        const chosen = document.querySelector("input.action-select:checked");
        const list = document.getElementById("header-sessions-list");
        return document.hidden || chosen || list.contains(document.activeElement);
    }

    async function fetched() {
        try {
            const response = await fetch(location.href, {credentials: "same-origin"});
            if (!response.ok || response.redirected) {
                return null;
            }
            return new DOMParser().parseFromString(await response.text(), "text/html");
        } catch {
            return null;
        }
    }

    let asOf = new Date();

    async function refresh() {
        if (busy()) {
            return;
        }
        const page = await fetched();
        const fresh = parts.map((id) => page && page.getElementById(id));
        const stale = document.getElementById("header-sessions-stale");
        if (fresh.includes(null)) {
            // The next time, perhaps; until then it is to be seen that this is old.
            stale.querySelector("time").textContent = asOf.toLocaleTimeString();
            stale.hidden = false;
            return;
        }
        stale.hidden = true;
        if (busy()) {
            return;
        }
        asOf = new Date();
        parts.forEach((id, at) => document.getElementById(id).replaceWith(fresh[at]));
        // Whoever has signed in again meanwhile has another.
        const token = "[name=csrfmiddlewaretoken]";
        document.querySelectorAll(token).forEach((each) => {
            each.value = page.querySelector(token).value;
        });
        const boxes = document.querySelectorAll("tr input.action-select");
        if (boxes.length && window.Actions) {
            window.Actions(boxes);
        }
    }

    document.addEventListener("DOMContentLoaded", () => {
        copyable();
        const list = document.getElementById("header-sessions-list");
        if (list && list.dataset.refresh) {
            setInterval(refresh, 1000 * Number(list.dataset.refresh));
        }
        document.querySelectorAll("form[data-go-on]").forEach((form) => form.submit());
    });
}
