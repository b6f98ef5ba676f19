/** What all views of Block Storage v3 share: times, links, pages. */
import type { FastifyRequest } from 'fastify';

/** A time as Cinder writes it: UTC without a zone, six decimals. */
export function timeText(time: Date): string {
  return `${time.toISOString().slice(0, -1)}000`;
}

export function optionalTimeText(time: Date | null): string | null {
  return time === null ? null : timeText(time);
}

type Links = { rel: string; href: string }[];

/** The links of one resource (cinder/api/common.py, ViewBuilder._get_links). */
export function linksOf(request: FastifyRequest, projectId: string, collection: string, id: string): Links {
  const base = `${request.protocol}://${request.host}`;
  return [
    { rel: 'self', href: `${base}/v3/${projectId}/${collection}/${id}` },
    { rel: 'bookmark', href: `${base}/${projectId}/${collection}/${id}` },
  ];
}

/** The link to the next page, if this one is full. */
export function nextLink(
  request: FastifyRequest,
  page: readonly { readonly id: string }[],
  limit: number,
): Links | undefined {
  const last = page.at(-1);
  if (last === undefined || page.length < limit) return undefined;
  const url = new URL(request.url, `${request.protocol}://${request.host}`);
  url.searchParams.set('marker', last.id);
  return [{ rel: 'next', href: url.href }];
}
