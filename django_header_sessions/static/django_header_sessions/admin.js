"use strict";
// Copies ids, and refreshes the list where its address asks for it. All pages work without.
{
    const parts = ["header-sessions-figures", "header-sessions-list"];

    function copyable() {
        document.querySelectorAll("[data-copy]").forEach((button) => {
            if (!navigator.clipboard) {
                return;
            }
            button.hidden = false;
            const text = button.textContent;
            button.addEventListener("click", async () => {
                await navigator.clipboard.writeText(button.dataset.copy);
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

    async function refresh() {
        if (busy()) {
            return;
        }
        let page;
        try {
            const response = await fetch(location.href, {credentials: "same-origin"});
            if (!response.ok || response.redirected) {
                return;
            }
            page = new DOMParser().parseFromString(await response.text(), "text/html");
        } catch {
            return;  // the next time, perhaps
        }
        const fresh = parts.map((id) => page.getElementById(id));
        if (busy() || fresh.includes(null)) {
            return;
        }
        parts.forEach((id, at) => document.getElementById(id).replaceWith(fresh[at]));
        const boxes = document.querySelectorAll("tr input.action-select");
        if (boxes.length && window.Actions) {
            window.Actions(boxes);
        }
    }

    document.addEventListener("DOMContentLoaded", () => {
        copyable();
        const list = document.getElementById("changelist");
        if (list && list.dataset.refresh) {
            setInterval(refresh, 1000 * Number(list.dataset.refresh));
        }
    });
}
