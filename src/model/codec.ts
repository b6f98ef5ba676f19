/** Compression of objects. Names are those of Cinder's `backup_compression_algorithm` (cinder/backup/chunkeddriver.py). */

export type Codec = 'none' | 'zlib' | 'bz2' | 'zstd';

/** Every spelling that Cinder accepts and may therefore have written, in lower case. */
const spellings: Readonly<Record<string, Codec>> = {
  none: 'none',
  off: 'none',
  no: 'none',
  zlib: 'zlib',
  gzip: 'zlib',
  bz2: 'bz2',
  bzip2: 'bz2',
  zstd: 'zstd',
};

/** The codec of one of Cinder's spellings, in any case, or undefined. */
export function codecOf(spelling: string): Codec | undefined {
  const lower = spelling.toLowerCase();
  return Object.hasOwn(spellings, lower) ? spellings[lower] : undefined;
}
