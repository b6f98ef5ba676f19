/**
 * The service catalog: where the services of a cloud are. Three spellings of it meet here: the one of a request context
 * (`publicURL` keys, as keystonemiddleware hands it on), Keystone v2's (the same) and Keystone v3's (`interface` and `url`).
 */
export type Endpoint = { readonly interface: string; readonly region: string | null; readonly url: string };
export type CatalogEntry = {
  readonly type: string;
  readonly name: string | null;
  readonly endpoints: readonly Endpoint[];
};
export type Catalog = readonly CatalogEntry[];

/** What to look for, as `swift_catalog_info` says it; `endpointType` is `publicURL`, `internalURL` or `adminURL`. */
export type CatalogQuery = {
  readonly serviceType: string;
  readonly serviceName: string;
  readonly endpointType: string;
};

/** Reads any spelling of a catalog; entries and endpoints that make no sense are left out. */
export function parseCatalog(value: unknown): Catalog {
  return listOf(value).flatMap((entry) => {
    const type = stringOf(entry, 'type');
    if (type === null) return [];
    return [{ type, name: stringOf(entry, 'name'), endpoints: parseEndpoints(entry) }];
  });
}

function parseEndpoints(entry: object): readonly Endpoint[] {
  return listOf(valueOf(entry, 'endpoints')).flatMap((endpoint) => {
    const region = stringOf(endpoint, 'region') ?? stringOf(endpoint, 'region_id');
    const named = stringOf(endpoint, 'interface');
    const url = stringOf(endpoint, 'url');
    if (named !== null && url !== null) return [{ interface: named.replace(/URL$/, ''), region, url }];
    return ['public', 'internal', 'admin'].flatMap((name) => {
      const old = stringOf(endpoint, `${name}URL`);
      return old === null ? [] : [{ interface: name, region, url: old }];
    });
  });
}

/**
 * The URL of the first endpoint of the wanted type and interface, in `region` if there is one; null if there is none.
 * The name decides only between several services of one type, as Cinder compares the type alone (cinder/backup/drivers/swift.py).
 */
export function findEndpoint(
  catalog: Catalog,
  query: CatalogQuery,
  region: string | undefined,
): string | null {
  const wanted = query.endpointType.replace(/URL$/, '');
  const named = (entry: CatalogEntry) => Number(entry.name === query.serviceName);
  const entries = catalog
    .filter((entry) => entry.type === query.serviceType)
    .toSorted((a, b) => named(b) - named(a));
  for (const entry of entries) {
    for (const endpoint of entry.endpoints) {
      if (endpoint.interface === wanted && (region === undefined || endpoint.region === region)) {
        return endpoint.url;
      }
    }
  }
  return null;
}

/** What the catalog offers of a type, for the sentence of an error: `RegionOne/public, RegionOne/internal`. */
export function describeOffers(catalog: Catalog, type: string): string {
  const offers = catalog
    .filter((entry) => entry.type === type)
    .flatMap((entry) =>
      entry.endpoints.map((endpoint) => `${endpoint.region ?? 'no region'}/${endpoint.interface}`),
    );
  return offers.length === 0 ? `no ${type} at all` : offers.join(', ');
}

function listOf(value: unknown): readonly object[] {
  return Array.isArray(value)
    ? value.filter((item): item is object => typeof item === 'object' && item !== null)
    : [];
}

function valueOf(from: object, key: string): unknown {
  return Object.entries(from).find(([name]) => name === key)?.[1];
}

function stringOf(from: object, key: string): string | null {
  const value = valueOf(from, key);
  return typeof value === 'string' && value !== '' ? value : null;
}
