/**
 * The outer form of every message: JSON in UTF-8, `{"oslo.version": "2.0", "oslo.message": "<JSON text>"}`
 * (oslo_messaging/_drivers/common.py, serialize_msg). A body without these keys is the message itself (format 1.0).
 */
import { promisify } from 'node:util';
import { inflate } from 'node:zlib';
import { BackupError, messageOf } from '../model/errors.ts';

export type Json = null | boolean | number | string | readonly Json[] | JsonObject;
export type JsonObject = { readonly [key: string]: Json };

/** The AMQP properties that matter: kombu names a compression in a header. */
export type RawMessage = {
  readonly content: Buffer;
  readonly properties: { readonly headers?: { readonly [name: string]: unknown } | undefined };
};

const envelopeVersion = '2.0';
const largestMessageBytes = 64 * 2 ** 20;
const inflateAsync = promisify(inflate);

/** The bytes of a message in format 2.0. */
export function encodeEnvelope(message: JsonObject): Buffer {
  return encodePlain({ 'oslo.version': envelopeVersion, 'oslo.message': JSON.stringify(message) });
}

/** The bytes of a message without envelope: notifications in format 1.0. */
export function encodePlain(message: JsonObject): Buffer {
  return Buffer.from(JSON.stringify(message), 'utf8');
}

/** The message inside the envelope. Throws `message-invalid`, or `version-unsupported` for another major version. */
export async function decodeEnvelope(raw: RawMessage): Promise<JsonObject> {
  const outer = parseObject(await decompress(raw), 'the message');
  const version = outer['oslo.version'];
  const inner = outer['oslo.message'];
  if (version === undefined || inner === undefined) return outer;
  if (typeof version !== 'string' || !version.startsWith('2.')) {
    throw new BackupError(
      'version-unsupported',
      `the message envelope has version ${JSON.stringify(version)}: only 2.x is understood`,
    );
  }
  if (typeof inner !== 'string') {
    throw new BackupError(
      'message-invalid',
      'oslo.message is not a text: the sender does not speak oslo.messaging',
    );
  }
  return parseObject(inner, 'oslo.message');
}

export function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

async function decompress({ content, properties }: RawMessage): Promise<string> {
  const compression = properties.headers?.['compression'];
  if (compression === undefined) return content.toString('utf8');
  if (compression !== 'application/x-gzip') {
    throw new BackupError(
      'message-invalid',
      `the message is compressed as ${JSON.stringify(compression)}: unset kombu_compression where it is sent`,
    );
  }
  try {
    const bytes = await inflateAsync(content, { maxOutputLength: largestMessageBytes });
    return bytes.toString('utf8');
  } catch (error) {
    throw new BackupError('message-invalid', `the message cannot be decompressed: ${messageOf(error)}`, {
      cause: error,
    });
  }
}

function parseObject(text: string, what: string): JsonObject {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new BackupError('message-invalid', `${what} is not JSON: ${messageOf(error)}`, { cause: error });
  }
  if (!isJsonObject(value)) throw new BackupError('message-invalid', `${what} is not a JSON object`);
  return value;
}
