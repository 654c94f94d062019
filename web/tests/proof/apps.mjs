// Real applications with absolute addresses in previews: a Next application and Django's admin, by name
// and below a path. Part of `make proof`; scripts/page-proof gets them into LEGWORK_PAGE_APPS.
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer as net } from "node:net";
import { join } from "node:path";
import { launch, opened, prompt, shots } from "../lib/page.mjs";
import { serve, until } from "../lib/serve.mjs";

const apps = process.env.LEGWORK_PAGE_APPS;
const free = () =>
  new Promise((resolve) => {
    const listener = net().listen(0, "127.0.0.1", () => {
      const { port } = listener.address();
      listener.close(() => resolve(port));
    });
  });

const NEXT = {
  "next/app/layout.js":
    "export default function Layout({ children }) {\n  return (<html lang='en'><body>{children}</body></html>);\n}\n",
  "next/app/page.js":
    "import Link from 'next/link';\nimport Counter from './counter';\nexport default function Page() {\n  return (<main><h1>Next says hello</h1><Counter /><Link href='/other'>other</Link></main>);\n}\n",
  "next/app/other/page.js": "export default function Other() {\n  return <h1>The other page</h1>;\n}\n",
  "next/app/counter.js":
    "'use client';\nimport { useState } from 'react';\nexport default function Counter() {\n  const [n, set] = useState(0);\n  return <button onClick={() => set(n + 1)}>clicked {n} first</button>;\n}\n",
  "next/app/api/time/route.js": "export const GET = () => Response.json({ now: 1 });\n",
  "next/package.json": '{"name": "next-app", "private": true}\n',
};

const [own, port] = [await free(), await free()];
// By a name that is no machine's own there are no names for ports; by TLS browsers keep cookies of frames.
const tls = await free();
const server = await serve(NEXT, { ALLOWED_ORIGINS: `https://ide.example:${tls}` }, (command) => [
  ...command.slice(0, -1),
  String(own),
]);
// Its bundler follows no link out of the application's folder.
execFileSync("cp", ["-r", join(apps, "next/node_modules"), join(server.workspace, "next/node_modules")]);
const django = join(apps, "django/bin");
const manage = (...args) =>
  execFileSync(join(django, "python"), ["manage.py", ...args], {
    cwd: join(server.workspace, "site"),
    env: {
      ...process.env,
      DJANGO_SUPERUSER_PASSWORD: "a-long-password",
      DJANGO_SUPERUSER_USERNAME: "admin",
      DJANGO_SUPERUSER_EMAIL: "admin@example.org",
    },
  });
mkdirSync(join(server.workspace, "site"));
execFileSync(join(django, "django-admin"), ["startproject", "site_of_ours", "site"], {
  cwd: server.workspace,
});
manage("migrate", "--verbosity", "0");
manage("createsuperuser", "--noinput");

// What speaks TLS in front.
const home = server.home;
execFileSync("openssl", [
  ...["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=ide.example"],
  ...["-keyout", join(home, "key.pem"), "-out", join(home, "cert.pem")],
]);
writeFileSync(
  join(home, "nginx.conf"),
  `daemon off; pid ${home}/nginx.pid; error_log ${home}/nginx.log; worker_processes 1;
events { worker_connections 512; }
http { access_log off; client_body_temp_path ${home}/body; proxy_temp_path ${home}/proxy;
  map $http_upgrade $connection_upgrade { default upgrade; '' close; }
  server { listen 127.0.0.1:${tls} ssl; server_name ide.example;
    ssl_certificate ${home}/cert.pem; ssl_certificate_key ${home}/key.pem;
    location / { proxy_pass http://127.0.0.1:${own}; proxy_http_version 1.1; proxy_buffering off; proxy_set_header Host $http_host; proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade; } } }`,
);
const nginx = spawn("nginx", ["-c", join(home, "nginx.conf")], { stdio: "ignore" });

const browser = await launch(["ide.example"]);
const options = { ignoreHTTPSErrors: true, viewport: { width: 1440, height: 900 } };
let failed = 0;
const shown = async (what, look) => {
  try {
    await look();
    console.log(`  ${what}`);
  } catch (error) {
    failed += 1;
    console.log(`✗ ${what}: ${String(error).slice(0, 600)}`);
  }
};

/** The page, with an application that was started in its terminal, and the frame of its preview. */
async function preview(address, command, port) {
  const { page, close } = await opened(browser, address, options);
  await prompt(page);
  await page.keyboard.type(`clear; ${command}\n`);
  const notice = page.locator(".notice").filter({ hasText: `Port ${port} is listening` });
  await notice.getByRole("button", { name: "Preview" }).click({ timeout: 60_000 });
  const stop = async () => {
    await page.locator(".screen.active").click();
    await page.keyboard.press("Control+c");
    await page.getByText(`Nothing listens on port ${port}`).waitFor();
    await close();
  };
  return { page, frame: page.frameLocator("iframe"), stop };
}

for (const [how, address] of [
  ["by name", server.url],
  ["below a path", `https://ide.example:${tls}`],
]) {
  await shown(`Django's admin ${how}: signed in, styled, a user added`, async () => {
    const port = await free();
    const { page, frame, stop } = await preview(
      address,
      `(cd site && ${django}/python manage.py runserver ${port})`,
      port,
    );
    const path = page.getByLabel("Path", { exact: true });
    await path.fill("/admin/");
    await path.press("Enter");
    await frame.getByLabel("Username:").fill("admin");
    await frame.getByLabel("Password:").fill("a-long-password");
    await frame.getByRole("button", { name: "Log in" }).click();
    await frame.getByText("Site administration").first().waitFor();
    const colour = await frame.locator("#header").evaluate((bar) => getComputedStyle(bar).backgroundColor);
    assert.notEqual(colour, "rgba(0, 0, 0, 0)", "its style sheet is there");
    await frame.getByRole("link", { name: "Add" }).last().click();
    await frame.getByLabel("Username:").fill(`user-${how.replaceAll(" ", "-")}`);
    await frame.getByLabel("Password:", { exact: true }).fill("another-long-one");
    await frame.getByLabel("Password confirmation:").fill("another-long-one");
    await frame.getByRole("button", { name: "Save", exact: true }).click();
    await frame.getByText("was added successfully").waitFor();
    if (shots)
      await page.screenshot({ path: join(shots, `workspace-django-${how.replaceAll(" ", "-")}.png`) });
    await stop();
  });
}

await shown("a Next application by name: hydrated, routed, hot", async () => {
  const { page, frame, stop } = await preview(
    server.url,
    `(cd next && node node_modules/next/dist/bin/next dev --port ${port})`,
    port,
  );
  const button = frame.getByRole("button", { name: /clicked/ });
  await button.filter({ hasText: "clicked 0 first" }).waitFor({ timeout: 120_000 });
  await until("hydration", async () => {
    await button.click();
    return /clicked [1-9]/.test(await button.textContent());
  });
  const path = join(server.workspace, "next/app/counter.js");
  writeFileSync(path, readFileSync(path, "utf8").replace("first", "second"));
  await button.filter({ hasText: /clicked [1-9]\d* second/ }).waitFor({ timeout: 60_000 });
  await frame.getByRole("link", { name: "other" }).click();
  await frame.getByRole("heading", { name: "The other page" }).waitFor({ timeout: 60_000 });
  if (shots) await page.screenshot({ path: join(shots, "workspace-next.png") });
  await stop();
});

await shown("a Next application, built, below a path: hydrated, routed", async () => {
  const built = await free();
  const { page, frame, stop } = await preview(
    `https://ide.example:${tls}`,
    `(cd next && node node_modules/next/dist/bin/next build && node node_modules/next/dist/bin/next start --port ${built})`,
    built,
  );
  const button = frame.getByRole("button", { name: /clicked/ });
  await until("hydration", async () => {
    await button.click();
    return /clicked [1-9]/.test(await button.textContent());
  });
  await frame.getByRole("link", { name: "other" }).click();
  await frame.getByRole("heading", { name: "The other page" }).waitFor();
  if (shots) await page.screenshot({ path: join(shots, "workspace-next-by-path.png") });
  await stop();
});

await browser.close();
nginx.kill();
await server.stop();
process.exit(failed ? 1 : 0);
