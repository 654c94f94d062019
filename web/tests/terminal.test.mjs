// The page's terminal with real programs: what they draw, where, and what is copied and typed.
import assert from "node:assert/strict";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { launch, opened, prompt, shots, terminalText } from "./lib/page.mjs";
import { serve, until } from "./lib/serve.mjs";

let server, browser;
const at = (path) => join(server.workspace, path);
const kept = (path) => existsSync(at(path)) && readFileSync(at(path), "utf8");

before(async () => {
  server = await serve({});
  browser = await launch();
});
after(async () => {
  await browser?.close();
  await server?.stop();
});

test("characters take as many columns as programs are told", async () => {
  const samples = [
    "plain",
    "日本語",
    "한국어",
    "ｶﾅ",
    "e\u0301e\u0301",
    "นี่",
    "👩‍👩‍👧",
    "🫠🤷🏽",
    "⚠️",
    "🇩🇪",
    "a\u200bb",
    "½①…",
    "שלום",
  ];
  writeFileSync(at("samples"), samples.join("\n") + "\n");
  // Writes each, asks where the cursor is, and puts a bar and the answer behind it.
  writeFileSync(
    at("columns.sh"),
    `stty -echo
    while read -r sample; do
      printf '%s\\033[6n' "$sample"
      IFS=';' read -rsd R row column < /dev/tty
      printf '|%s\\n' "$column"
    done < samples
    stty echo; echo over-$((1+1))\n`,
  );
  const { page, complaints, close } = await opened(browser, server.url);
  // All of it must fit on the screen.
  await page.evaluate(() => localStorage.setItem("legwork.workspace.settings", '{"bottom": 480}'));
  await page.reload();
  await prompt(page);
  await page.keyboard.type("clear; bash columns.sh\n");
  await until("the samples", async () => (await terminalText(page)).includes("over-2"));
  // Each question has one answer: none is left to be typed into the shell.
  await page.keyboard.type("echo left-$((1+1))\n");
  await until("the shell", async () => /[#$] echo left-[^]*left-2/.test(await terminalText(page)));
  const seen = await page.evaluate(() =>
    [...document.querySelectorAll(".screen.active .xterm-rows > div")].flatMap((row) => {
      const said = /\|(\d+)\s*$/.exec(row.textContent)?.[1];
      if (!said) return [];
      const walker = document.createTreeWalker(row, NodeFilter.SHOW_TEXT);
      for (let node = walker.nextNode(); node; node = walker.nextNode()) {
        const bar = node.textContent.indexOf("|");
        if (bar < 0) continue;
        const range = document.createRange();
        range.setStart(node, bar);
        range.setEnd(node, bar + 1);
        return [
          { said: Number(said), x: range.getBoundingClientRect().left - row.getBoundingClientRect().left },
        ];
      }
      return [];
    }),
  );
  assert.equal(seen.length, samples.length, JSON.stringify(seen));
  const wide = seen[0].x / (seen[0].said - 1);
  seen.forEach(({ said, x }, n) =>
    assert.equal(Math.round((x / wide) * 4) / 4, said - 1, `columns of ${JSON.stringify(samples[n])}`),
  );
  if (shots) await page.screenshot({ path: join(shots, "workspace-columns.png") });
  assert.deepEqual(complaints, []);
  await close();
});

test("what is chosen is copied, by hand and by programs", async () => {
  const { page, complaints, close } = await opened(browser, server.url, {
    permissions: ["clipboard-read", "clipboard-write"],
  });
  await prompt(page);
  await page.keyboard.type("clear; echo; echo copied-$((1+1))\n");
  await until("the word", async () => /^copied-2$/m.test(await terminalText(page)));
  const box = await page.evaluate(() => {
    const row = [...document.querySelectorAll(".screen.active .xterm-rows > div")].find((row) =>
      row.textContent.startsWith("copied-2"),
    );
    const { x, y, height } = row.getBoundingClientRect();
    return { x: x + 20, y: y + height / 2 };
  });
  await page.mouse.dblclick(box.x, box.y);
  await page.keyboard.press("Control+Shift+c");
  const clipboard = () => page.evaluate(() => navigator.clipboard.readText());
  await until("the word", async () => (await clipboard()) === "copied-2");
  // By selecting alone, where that is wanted.
  await page.evaluate(() => navigator.clipboard.writeText(""));
  await page.getByRole("tab", { name: "More" }).click();
  await page.getByLabel("Copy what is selected in terminals").check();
  await page.mouse.dblclick(box.x, box.y);
  await until("the word", async () => (await clipboard()) === "copied-2");
  await page.keyboard.type("printf '\\033]52;c;%s\\a' \"$(printf 'by a program' | base64)\"\n");
  await until("the program's", async () => (await clipboard()) === "by a program");
  // Without a selection the keys are not the page's to send either: nothing is interrupted.
  await page.keyboard.press("Control+Shift+v");
  await until("the paste", async () => (await terminalText(page)).includes("by a program"));
  await page.keyboard.press("Control+c");
  assert.deepEqual(complaints, []);
  await close();
});

test("fzf finds, by its own keys", async () => {
  const { page, complaints, close } = await opened(browser, server.url);
  await prompt(page);
  await page.keyboard.type("clear; printf 'alpha\\nbeta\\ngamma\\n' | fzf --height 40% > picked\n");
  await until("fzf", async () => (await terminalText(page)).includes("3/3"));
  await page.keyboard.type("a");
  // Of Ctrl and a letter none is the page's here.
  await page.keyboard.press("Control+k");
  await page.keyboard.press("Control+p");
  await page.keyboard.press("Control+u");
  await page.keyboard.type("bet");
  await until("one", async () => (await terminalText(page)).includes("1/3"));
  await page.keyboard.press("Enter");
  await until("the choice", () => kept("picked") === "beta\n");
  assert.equal(
    await page.getByRole("combobox", { name: "A file or an action" }).count(),
    0,
    "no palette has opened",
  );
  assert.deepEqual(complaints, []);
  await close();
});

test("a phone has the keys that its keyboard lacks", async () => {
  const { page, complaints, close } = await opened(browser, server.url, {
    viewport: { width: 360, height: 740 },
    hasTouch: true,
    isMobile: true,
  });
  await page.getByRole("navigation").getByRole("button", { name: "Terminal" }).click();
  await prompt(page);
  await page.keyboard.type("clear; stty -icanon; echo ready-$((1+1)); cat -v > bar; stty sane\n");
  await until("cat", async () => (await terminalText(page)).includes("ready-2"));
  const bar = page.getByRole("toolbar", { name: "Keys" });
  for (const name of ["Escape", "Tab", "Up"]) await bar.getByRole("button", { name, exact: true }).tap();
  await bar.getByRole("button", { name: "Ctrl", exact: true }).tap();
  await page.keyboard.type("a");
  await until("the keys", () => kept("bar") === "^[\t^[[A^A");
  await bar.getByRole("button", { name: "Interrupt" }).tap();
  await page.keyboard.type("echo over-$((1+1))\n");
  await until("the end", async () => (await terminalText(page)).includes("over-2"));
  await page.keyboard.type("stty sane; clear\n");
  assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth));
  if (shots) await page.screenshot({ path: join(shots, "workspace-keybar.png") });
  assert.deepEqual(complaints, []);
  await close();
});
