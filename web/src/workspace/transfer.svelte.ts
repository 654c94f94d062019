/** Files that go up and down. */
import { files } from "./files.svelte";
import { link } from "./link.svelte";
import { said, tell, trouble } from "./notices.svelte";

export interface Upload {
  id: number;
  path: string;
  size: number;
  sent: number;
  state: "waiting" | "sending" | "done" | "failed" | "asking";
  why: string;
  file: File;
  cancel?: () => void;
}

/** So many go at a time. */
const ABREAST = 3;
let count = 0;

/** A file that was dropped, and where below the target it belongs. */
export interface Dropped {
  file: File;
  path: string;
}

interface Entry {
  isFile: boolean;
  isDirectory: boolean;
  name: string;
  file: (done: (file: File) => void, fail: (error: unknown) => void) => void;
  createReader: () => {
    readEntries: (done: (entries: Entry[]) => void, fail: (error: unknown) => void) => void;
  };
}

/** All files of what was dropped, those in folders as well. */
export async function dropped(data: DataTransfer): Promise<Dropped[]> {
  const entries = [...data.items]
    .map((item) => item.webkitGetAsEntry() as unknown as Entry | null)
    .filter((entry) => entry !== null);
  if (entries.length === 0) return [...data.files].map((file) => ({ file, path: file.name }));
  const found: Dropped[] = [];
  const walk = async (entry: Entry, before: string): Promise<void> => {
    const path = before + entry.name;
    if (entry.isFile) {
      found.push({ file: await new Promise<File>((done, fail) => entry.file(done, fail)), path });
      return;
    }
    const reader = entry.createReader();
    for (;;) {
      const some = await new Promise<Entry[]>((done, fail) => reader.readEntries(done, fail));
      if (some.length === 0) return;
      for (const one of some) await walk(one, `${path}/`);
    }
  };
  for (const entry of entries) await walk(entry, "");
  return found;
}

class Uploads {
  all = $state<Upload[]>([]);

  get busy(): boolean {
    return this.all.some((one) => one.state === "waiting" || one.state === "sending");
  }

  add(folder: string, given: Dropped[]): void {
    for (const { file, path } of given) {
      const upload: Upload = {
        id: ++count,
        path: `${folder}/${path}`,
        size: file.size,
        sent: 0,
        // One that is there already is not sent before it is clear that it may be replaced.
        state: files.has(`${folder}/${path}`) ? "asking" : "waiting",
        why: "",
        file,
      };
      this.all.push(upload);
    }
    this.next();
  }

  private next(): void {
    const sending = this.all.filter((one) => one.state === "sending").length;
    for (const one of this.all.filter((one) => one.state === "waiting").slice(0, ABREAST - sending))
      void this.send(one, false);
  }

  replace(upload: Upload): void {
    void this.send(upload, true);
  }

  retry(upload: Upload): void {
    upload.state = "waiting";
    this.next();
  }

  forget(upload: Upload): void {
    upload.cancel?.();
    this.all = this.all.filter((one) => one.id !== upload.id);
    this.next();
  }

  private send(upload: Upload, replace: boolean): Promise<void> {
    upload.state = "sending";
    upload.sent = 0;
    upload.why = "";
    return new Promise((resolve) => {
      // `fetch` says nothing of how much has gone.
      const request = new XMLHttpRequest();
      request.open("PUT", files.address(upload.path));
      if (link.token) request.setRequestHeader("Authorization", `Bearer ${link.token}`);
      if (!replace) request.setRequestHeader("If-None-Match", "*");
      request.upload.onprogress = (event) => (upload.sent = event.loaded);
      const over = (state: Upload["state"], why = ""): void => {
        upload.state = state;
        upload.why = why;
        delete upload.cancel;
        if (state === "done") {
          upload.sent = upload.size;
          setTimeout(() => this.forget(upload), 3000);
        }
        this.next();
        resolve();
      };
      request.onload = () => {
        if (request.status < 300) return over("done");
        if (request.status === 412) return over("asking", "there is such a file already");
        let why = request.statusText;
        try {
          why = (JSON.parse(request.responseText) as { error?: string }).error ?? why;
        } catch {
          // What is in between has said something of its own.
        }
        over("failed", why);
      };
      request.onerror = () => over("failed", "the connection broke");
      request.onabort = () => over("failed", "cancelled");
      upload.cancel = () => request.abort();
      request.send(upload.file);
    });
  }
}

export const uploads = new Uploads();

function offer(blob: Blob, name: string): void {
  const anchor = document.createElement("a");
  anchor.href = URL.createObjectURL(blob);
  anchor.download = name;
  anchor.click();
  setTimeout(() => URL.revokeObjectURL(anchor.href), 60_000);
}

/** Downloads a file, or a folder as an archive. */
export async function save(path: string, folder = false): Promise<void> {
  const name = path.slice(path.lastIndexOf("/") + 1);
  const relative = files.relative(path);
  const address = folder
    ? `/api/archive?format=zip&path=${encodeURIComponent(path === files.root ? "" : relative)}`
    : files.address(path);
  try {
    if (folder) tell(`${name} is being packed…`);
    offer(await (await link.http(address)).blob(), folder ? `${name}.zip` : name);
  } catch (error) {
    trouble(`${name} was not downloaded: ${said(error)}`);
  }
}
