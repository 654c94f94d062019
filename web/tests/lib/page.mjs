// The workspace's page in Chromium.
import { chromium } from "playwright-core";

export const shots = process.env.LEGWORK_SCREENSHOTS;

/** `names`: names of hosts that are this machine. */
export const launch = (names = []) =>
  chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-background-networking",
      "--no-first-run",
      ...(names.length ? [`--host-resolver-rules=${names.map((name) => `MAP ${name} 127.0.0.1`)}`] : []),
    ],
  });

/** Anything the browser complains about is kept: a test says that there was nothing. */
export async function opened(browser, url, options = {}) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  const complaints = [];
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
  await page.goto(url);
  return { page, complaints, close: () => context.close() };
}

export const terminalText = (page) =>
  page.evaluate(() => document.querySelector(".screen.active .xterm-rows")?.innerText ?? "");

/** Into the shell. */
export async function prompt(page) {
  await page.locator(".screen.active .xterm-rows").first().waitFor();
  await page.locator(".screen.active").first().click();
}

/** The text of the first editor, as far as it is drawn. */
export const text = (page) =>
  page.evaluate(() =>
    [...(document.querySelector(".editor .cm-content")?.querySelectorAll(".cm-line") ?? [])]
      .map((line) => line.textContent)
      .join("\n"),
  );

/** Pastes where the focus is. */
export const paste = (page, text) =>
  page.evaluate((text) => {
    const data = new DataTransfer();
    data.setData("text/plain", text);
    const event = new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true });
    document.activeElement.dispatchEvent(event);
  }, text);

/** Replaces all that is in the first editor. */
export async function write(page, text) {
  await page.locator(".editor .cm-content").first().click();
  await page.keyboard.press("Control+a");
  await page.keyboard.insertText(text);
}
