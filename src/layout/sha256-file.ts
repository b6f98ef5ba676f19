/**
 * The `_sha256file` of a backup: one digest for each block of the volume, as a stream both ways.
 * Followed: `_write_sha256file` and `_read_sha256file` of cinder/backup/chunkeddriver.py. Python calls the
 * block size `chunk_size`. Memory is bounded by constants here, whatever the volume.
 */
import { BackupError, invariant } from '../model/errors.ts';
import { digestBytes } from '../model/digest.ts';
import { createLineBuffer, decodeDigest, decodeLines, lineBytes } from './digest-lines.ts';
import { corruptDocument, createJsonParser, type JsonScalar } from './json-parser.ts';
import type { BackupHead } from './metadata-document.ts';
import { jsonText } from './python-json.ts';

/** The version of both closing documents: `DRIVER_VERSION`. */
export const layoutVersion = '1.0.0';

/** Digests in one run of the reader and lines in one piece of the writer, at most. */
const runDigests = 4096;
/** Text that is parsed at once: never more digests than one run, whatever the white space. */
const stepBytes = 256 * 1024;
const maxStringBytes = 64 * 1024;
const hexDigits = digestBytes * 2;

type Sha256FileHead = Pick<
  BackupHead,
  'backupId' | 'volumeId' | 'backupName' | 'backupDescription' | 'createdAt'
>;

/**
 * The text of a `_sha256file`, byte for byte as Python writes it, in pieces of about 288 KiB. `digests` are runs of
 * 32-byte digests of any number. A piece is overwritten when the next one is asked for.
 */
export async function* encodeSha256File(
  head: Sha256FileHead,
  blockSize: number,
  digests: AsyncIterable<Buffer>,
): AsyncGenerator<Buffer> {
  yield Buffer.from(
    `{\n  "backup_description": ${jsonText(head.backupDescription)},\n  "backup_id": ${jsonText(head.backupId)},\n` +
      `  "backup_name": ${jsonText(head.backupName)},\n  "chunk_size": ${blockSize},\n` +
      `  "created_at": ${jsonText(head.createdAt)},\n  "sha256s": [`,
  );
  const lines = createLineBuffer(runDigests);
  let filled = 0;
  let isFirst = true;
  const take = (): Buffer => {
    const piece = lines.text(filled).subarray(isFirst ? 1 : 0);
    filled = 0;
    isFirst = false;
    return piece;
  };
  for await (const run of digests) {
    invariant(run.length % digestBytes === 0, `a run of digests has ${run.length} bytes`);
    const count = run.length / digestBytes;
    for (let done = 0; done < count;) {
      const fits = Math.min(count - done, lines.capacity - filled);
      lines.write(filled, run, done, fits);
      filled += fits;
      done += fits;
      if (filled === lines.capacity) yield take();
    }
  }
  if (filled > 0) yield take();
  yield Buffer.from(
    `${isFirst ? '' : '\n  '}],\n  "version": ${jsonText(layoutVersion)},\n  "volume_id": ${jsonText(head.volumeId)}\n}`,
  );
}

/** What the reader holds against the document; each is checked where it stands, at the latest when the digests end. */
export type Sha256FileExpectations = {
  /** The object's name, for messages. */
  readonly name: string;
  readonly backupId?: string;
  readonly volumeId?: string;
  /** The block size that it must have. */
  readonly blockSize?: number;
  /** The number of digests that it must have. */
  readonly blocks?: number;
};

export type Sha256File = {
  /** `chunk_size`, in bytes; null if it stands behind the list (Python writes it before). */
  readonly blockSize: number | null;
  /**
   * Runs of at most 4096 digests, to be read once; a run is overwritten when the next one is asked for. Nothing has
   * been proven about the document until the last run has been taken. Throws `corrupt` or `version-unsupported`.
   */
  readonly digests: AsyncIterable<Buffer>;
  /** `chunk_size` wherever it stands, once all digests have been taken. */
  blockSizeAtEnd(): number | null;
  /** Releases the body; needed unless `digests` is read to its end or left by its `return`. May be called twice. */
  close(): Promise<void>;
};

/** Reads up to the list of digests. Throws `corrupt`, `version-unsupported`, and what `body` throws. */
export async function readSha256File(
  body: AsyncIterable<Buffer>,
  expectations: Sha256FileExpectations,
): Promise<Sha256File> {
  const machine = createDigestMachine(expectations);
  const pieces = body[Symbol.asyncIterator]();
  let piece: Buffer = Buffer.alloc(0);
  let taken = 0;

  /** Parses one step of text; false at the end of the document. */
  const step = async (): Promise<boolean> => {
    while (taken >= piece.length) {
      const next = await pieces.next();
      if (next.done === true) {
        machine.end();
        return false;
      }
      piece = next.value;
      taken = 0;
    }
    const upTo = Math.min(piece.length, taken + stepBytes);
    machine.push(piece.subarray(taken, upTo));
    taken = upTo;
    return true;
  };
  const close = async (): Promise<void> => {
    await pieces.return?.();
  };
  async function* readRuns(): AsyncGenerator<Buffer> {
    do {
      const run = machine.takeRun();
      if (run.length > 0) yield run;
    } while (await step());
  }
  const runs = readRuns();
  const closing = async (result: Promise<IteratorResult<Buffer>>): Promise<IteratorResult<Buffer>> => {
    let goesOn = false;
    try {
      const next = await result;
      goesOn = next.done !== true;
      return next;
    } finally {
      if (!goesOn) await close();
    }
  };
  // Not the generator itself: one that was never begun runs nothing when it is left, and the body would stay open.
  const digests: AsyncIterableIterator<Buffer> = {
    [Symbol.asyncIterator]: () => digests,
    next: () => closing(runs.next()),
    return: () => closing(runs.return(undefined)),
  };

  try {
    while (!machine.listSeen && (await step()));
  } catch (error) {
    await close();
    throw error;
  }
  return {
    blockSize: machine.blockSize,
    digests,
    blockSizeAtEnd: () => machine.blockSize,
    close,
  };
}

type DigestMachine = {
  push(text: Buffer): void;
  end(): void;
  /** The digests since the last call. */
  takeRun(): Buffer;
  readonly listSeen: boolean;
  readonly blockSize: number | null;
};

const knownKeys = new Set(['version', 'chunk_size', 'backup_id', 'volume_id', 'sha256s']);

function createDigestMachine(expectations: Sha256FileExpectations): DigestMachine {
  const { name } = expectations;
  const run = Buffer.allocUnsafeSlow((runDigests + 1) * digestBytes);
  const hex = Buffer.alloc(hexDigits);
  const seen = new Set<string>();
  let runBytes = 0;
  let count = 0;
  let depth = 0;
  let key = '';
  let inList = false;
  let listSeen = false;
  let blockSize: number | null = null;

  const fail = (what: string): BackupError => corruptDocument(name, what);
  const inKnownKey = () => depth === 1 && knownKeys.has(key);
  const taken = (digests: number): void => {
    runBytes += digests * digestBytes;
    count += digests;
    if (expectations.blocks !== undefined && count > expectations.blocks) {
      throw fail(`its list has more than the ${expectations.blocks} hashes of the volume's blocks`);
    }
  };

  const parser = createJsonParser(
    name,
    { maxDepth: 32, maxStringBytes },
    {
      open(kind) {
        if (depth === 0 && kind !== 'object') throw fail('it is not a JSON object');
        if (inList) throw fail(`hash ${count} is not a string`);
        if (inKnownKey()) {
          if (key !== 'sha256s' || kind !== 'array') throw fail(`${key} is not of the right type`);
          inList = true;
          listSeen = true;
        }
        depth += 1;
      },
      close() {
        depth -= 1;
        if (depth === 1) inList = false;
      },
      key(text) {
        if (depth !== 1) return;
        if (knownKeys.has(text) && seen.has(text)) throw fail(`${text} stands in it twice`);
        if (knownKeys.has(text)) seen.add(text);
        key = text;
      },
      value(value) {
        if (depth === 0) throw fail('it is not a JSON object');
        if (inList) {
          const isHex =
            typeof value === 'string' && value.length === hexDigits && hex.write(value, 'latin1') > 0;
          if (!isHex || !decodeDigest(hex, 0, run, runBytes))
            throw fail(`hash ${count} is not 64 hex digits`);
          taken(1);
        } else if (inKnownKey()) checkHead(key, value);
      },
      bulk(text, at) {
        if (!inList) return at;
        const lines = decodeLines(text, at, run, runBytes);
        if (lines > 0) taken(lines);
        return at + lines * lineBytes;
      },
    },
  );

  function checkHead(field: string, value: JsonScalar): void {
    if (field === 'version' && value !== layoutVersion) {
      throw new BackupError(
        'version-unsupported',
        `object ${name} has version ${JSON.stringify(value)}: only ${layoutVersion} can be read`,
      );
    }
    if (field === 'sha256s') throw fail('sha256s is not a list');
    if (field === 'chunk_size') {
      if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 1) {
        throw fail(`chunk_size is ${JSON.stringify(value)}, not a number of bytes`);
      }
      blockSize = value;
      if (expectations.blockSize !== undefined && value !== expectations.blockSize) {
        throw fail(`chunk_size is ${value}, not ${expectations.blockSize}`);
      }
    }
    const wanted =
      field === 'backup_id'
        ? expectations.backupId
        : field === 'volume_id'
          ? expectations.volumeId
          : undefined;
    if (wanted !== undefined && value !== wanted) {
      throw fail(`${field} is ${JSON.stringify(value)}, not ${wanted}: it belongs to another backup`);
    }
  }

  return {
    push: (text) => parser.push(text),
    end() {
      parser.end();
      for (const field of ['version', 'chunk_size', 'sha256s', 'backup_id', 'volume_id']) {
        if (!seen.has(field)) throw fail(`${field} is missing`);
      }
      if (expectations.blocks !== undefined && count !== expectations.blocks) {
        throw fail(`its list has ${count} hashes, the volume has ${expectations.blocks} blocks`);
      }
    },
    takeRun() {
      const digests = run.subarray(0, runBytes);
      runBytes = 0;
      return digests;
    },
    get listSeen() {
      return listSeen;
    },
    get blockSize() {
      return blockSize;
    },
  };
}
