/** An ETag as the digest that it holds: without quotes, in lower case; empty if there is none. */
export function unquoted(etag: string | null | undefined): string {
  return (etag ?? '').replaceAll('"', '').toLowerCase();
}
