/** Who we are to Swift and where our account is: the two modes of `backup_swift_auth`, and the service token beside them. */
import { BackupError } from '../model/errors.ts';
import {
  describeOffers,
  findEndpoint,
  parseCatalog,
  type Catalog,
  type CatalogQuery,
} from '../openstack/catalog.ts';
import type { Http } from '../openstack/http.ts';
import { keystoneV2, keystoneV3, tempAuthV1, type KeystoneIdentity } from '../openstack/log-in.ts';
import {
  createFixedToken,
  createTokenSource,
  type LogIn,
  type Token,
  type TokenSource,
} from '../openstack/token-source.ts';
import type { SwiftCaller, SwiftStoreOptions } from './swift-options.ts';

/** One answer of `SwiftAccess.current`: good for requests until Swift says 401. */
export type SwiftGrant = {
  /** `http(s)://host/v1/AUTH_<project>`, without a slash at its end. */
  readonly storageUrl: string;
  readonly headers: Readonly<Record<string, string>>;
  /** Says that Swift refused the tokens. True if a new grant can be had. */
  refuse(): boolean;
};

export type SwiftAccess = {
  current(signal: AbortSignal): Promise<SwiftGrant>;
};

export type AccessDeps = {
  /** Reaches Swift and its Keystone. */
  readonly http: Http;
  /** The token of `[service_user]`; null if none is sent. */
  readonly service: TokenSource | null;
  readonly now: () => number;
};

/**
 * `caller` is null only where no request stands behind the store (self-test, single_user with its own auth URL).
 * Throws `config-invalid` and `store-denied`.
 */
export function createSwiftAccess(
  options: SwiftStoreOptions,
  caller: SwiftCaller | null,
  deps: AccessDeps,
): SwiftAccess {
  const single = options.auth === 'single_user';
  const tokens = single
    ? createTokenSource(singleUserLogIn(options, caller, deps), deps.now)
    : createFixedToken(callerToken(caller));
  const { service } = deps;
  const fixedUrl = single ? null : callerStorageUrl(options, requireCaller(caller));

  return {
    async current(signal) {
      const [token, serviceToken] = await Promise.all([tokens.current(signal), service?.current(signal)]);
      return {
        storageUrl: fixedUrl ?? tokenStorageUrl(options, token),
        headers: {
          'x-auth-token': token.id,
          ...(serviceToken === undefined ? {} : { 'x-service-token': serviceToken.id }),
        },
        refuse() {
          const renewable = tokens.refuse(token);
          const serviceRenewable = serviceToken !== undefined && service?.refuse(serviceToken) === true;
          return renewable || serviceRenewable;
        },
      };
    },
  };
}

function singleUserLogIn(
  options: SwiftStoreOptions,
  caller: SwiftCaller | null,
  deps: { readonly http: Http; readonly now: () => number },
): LogIn {
  const user = options.user;
  if (user === undefined)
    throw incomplete('backup_swift_user is not set, and backup_swift_auth is single_user');
  const key = options.key;
  if (key === undefined)
    throw incomplete('backup_swift_key is not set, and backup_swift_auth is single_user');
  const authUrl = options.authUrl ?? catalogAuthUrl(options, caller);
  switch (options.authVersion) {
    case 1:
      return tempAuthV1(deps.http, authUrl, { user, key }, deps.now);
    case 2:
      return keystoneV2(deps.http, authUrl, { user, password: key, tenant: options.project });
    case 3:
      return keystoneV3(deps.http, authUrl, v3Identity(options, user, key));
    default:
      return options.authVersion satisfies never;
  }
}

function v3Identity(options: SwiftStoreOptions, username: string, password: string): KeystoneIdentity {
  if (options.project === undefined) {
    throw incomplete('backup_swift_project is not set, and backup_swift_auth_version is 3');
  }
  return {
    kind: 'password',
    username,
    userId: undefined,
    password,
    userDomainName: options.userDomainName,
    userDomainId: undefined,
    scope: {
      projectName: options.project,
      projectId: undefined,
      projectDomainName: options.projectDomainName,
      projectDomainId: undefined,
      systemScope: undefined,
    },
  };
}

function catalogAuthUrl(options: SwiftStoreOptions, caller: SwiftCaller | null): string {
  const query = options.keystoneCatalogInfo;
  const catalog = parseCatalog(caller?.serviceCatalog);
  const url = findInRegion(catalog, query, options.regionName);
  if (url !== null) return url;
  throw incomplete(
    `it is not known which Keystone to use: the catalog of the request has ${describeOffers(catalog, query.serviceType)}; set backup_swift_auth_url`,
  );
}

function requireCaller(caller: SwiftCaller | null): SwiftCaller {
  if (caller !== null && caller.authToken !== '') return caller;
  throw new BackupError(
    'store-denied',
    'the request carries no user token, and backup_swift_auth is per_user: start the operation as a user, or set backup_swift_auth = single_user',
  );
}

function callerToken(caller: SwiftCaller | null): Token {
  return { id: requireCaller(caller).authToken, expiresAtMs: null, catalog: [], storageUrl: null };
}

function callerStorageUrl(options: SwiftStoreOptions, caller: SwiftCaller): string {
  if (options.url !== undefined) return withoutSlash(`${options.url}${caller.projectId}`);
  const query = options.catalogInfo;
  const catalog = parseCatalog(caller.serviceCatalog);
  const url = findInRegion(catalog, query, options.regionName);
  if (url !== null) return withoutSlash(url);
  throw incomplete(
    `it is not known which Swift to use: the catalog of the request has ${describeOffers(catalog, query.serviceType)}, not ${query.endpointType} in ${options.regionName ?? 'any region'}; correct swift_catalog_info, or set backup_swift_url`,
  );
}

/** As Cinder, takes any region where the catalog of the request does not know that one (cinder/utils.py get_region_filtered_endpoint). */
function findInRegion(catalog: Catalog, query: CatalogQuery, region: string | undefined): string | null {
  const known = catalog.some(
    ({ type, endpoints }) =>
      type === query.serviceType && endpoints.some((endpoint) => endpoint.region === region),
  );
  return findEndpoint(catalog, query, known ? region : undefined);
}

/**
 * What python-swiftclient takes of Keystone's answer (client.py get_auth_keystone): Cinder hands it neither `swift_catalog_info` nor
 * `backup_swift_region_name` nor `backup_swift_url` in single_user mode.
 */
const singleUserQuery: CatalogQuery = {
  serviceType: 'object-store',
  serviceName: '',
  endpointType: 'publicURL',
};

function tokenStorageUrl(options: SwiftStoreOptions, token: Token): string {
  if (token.storageUrl !== null) return withoutSlash(token.storageUrl);
  const url = findEndpoint(token.catalog, singleUserQuery, undefined);
  if (url !== null) return withoutSlash(url);
  throw incomplete(
    `Keystone's catalog for ${options.user ?? 'this user'} has ${describeOffers(token.catalog, singleUserQuery.serviceType)}, and a public one is needed where backup_swift_auth is single_user: give the user a project, or the service that endpoint`,
  );
}

function withoutSlash(url: string): string {
  return url.replace(/\/+$/, '');
}

function incomplete(message: string): BackupError {
  return new BackupError('config-invalid', message);
}
