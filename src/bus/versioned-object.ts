/**
 * Versioned objects on the wire (oslo_versionedobjects/base.py, obj_to_primitive): `versioned_object.name`, `.namespace`,
 * `.version`, `.data` and, if fields were changed since the object was loaded, `.changes`. Objects nest, in fields and in
 * lists. Fields that we do not know are kept, in their place, so that what came in can go out again.
 */
import { BackupError } from '../model/errors.ts';
import { isJsonObject, type Json, type JsonObject } from './envelope.ts';

const tag: unique symbol = Symbol('versioned object');

export type VersionedObject = {
  readonly [tag]: true;
  /** `Backup`, `Volume`, ... */
  readonly name: string;
  readonly namespace: string;
  readonly version: string;
  readonly data: EntityMap;
  /** Names of the changed fields; undefined if the message says nothing of it. */
  readonly changes: readonly string[] | undefined;
};

/** What an argument or a result can be: JSON with objects in it. */
export type Entity = null | boolean | number | string | readonly Entity[] | VersionedObject | EntityMap;
export type EntityMap = { readonly [key: string]: Entity };

/** An object of Cinder. */
export function versionedObject(
  name: string,
  version: string,
  data: EntityMap,
  changes?: readonly string[],
): VersionedObject {
  return { [tag]: true, name, namespace: 'cinder', version, data, changes };
}

export function isVersionedObject(entity: Entity | undefined): entity is VersionedObject {
  return typeof entity === 'object' && entity !== null && tag in entity;
}

/** `value` with every versioned object in it decoded. Throws `message-invalid` for one that is malformed. */
export function decodeEntity(value: Json): Entity {
  if (typeof value !== 'object' || value === null) return value;
  if (Array.isArray(value)) return value.map(decodeEntity);
  if (!isJsonObject(value)) return null;
  return Object.hasOwn(value, 'versioned_object.name') ? decodeObject(value) : decodeMap(value);
}

export function decodeMap(map: JsonObject): EntityMap {
  return Object.fromEntries(Object.entries(map).map(([key, value]) => [key, decodeEntity(value)]));
}

function decodeObject(primitive: JsonObject): VersionedObject {
  const {
    'versioned_object.name': name,
    'versioned_object.namespace': namespace,
    'versioned_object.version': version,
    'versioned_object.data': data,
    'versioned_object.changes': changes,
  } = primitive;
  if (
    typeof name !== 'string' ||
    typeof namespace !== 'string' ||
    typeof version !== 'string' ||
    !isJsonObject(data ?? null)
  ) {
    throw new BackupError(
      'message-invalid',
      `the versioned object ${JSON.stringify(name)} lacks namespace, version or data`,
    );
  }
  const fields = isJsonObject(data) ? decodeMap(data) : {};
  const changed = Array.isArray(changes) ? changes.map(String) : undefined;
  return { [tag]: true, name, namespace, version, data: fields, changes: changed };
}

/** The JSON of an entity: the exact inverse of `decodeEntity`. */
export function encodeEntity(entity: Entity): Json {
  if (typeof entity !== 'object' || entity === null) return entity;
  if (isEntityList(entity)) return entity.map(encodeEntity);
  if (isVersionedObject(entity)) return encodeObject(entity);
  return encodeMap(entity);
}

export function encodeMap(map: EntityMap): JsonObject {
  return Object.fromEntries(Object.entries(map).map(([key, value]) => [key, encodeEntity(value)]));
}

function encodeObject({ name, namespace, version, data, changes }: VersionedObject): JsonObject {
  return {
    'versioned_object.name': name,
    'versioned_object.namespace': namespace,
    'versioned_object.version': version,
    'versioned_object.data': encodeMap(data),
    ...(changes === undefined ? {} : { 'versioned_object.changes': changes }),
  };
}

function isEntityList(entity: Entity): entity is readonly Entity[] {
  return Array.isArray(entity);
}

/**
 * The object of class `name` and major version `major` that `entity` is. Throws `message-invalid` for anything else,
 * and `version-unsupported` for another major version; a newer minor version only adds fields.
 */
export function requireObject(entity: Entity | undefined, name: string, major = 1): VersionedObject {
  if (!isVersionedObject(entity) || entity.name !== name) {
    const found = isVersionedObject(entity) ? `an object ${entity.name}` : 'no object';
    throw new BackupError('message-invalid', `expected an object ${name} and found ${found}`);
  }
  if (entity.version.split('.', 1)[0] !== String(major)) {
    throw new BackupError(
      'version-unsupported',
      `${name} has version ${entity.version}: only ${major}.x is understood`,
      { details: { objname: name, objver: entity.version, supported: `${major}.x` } },
    );
  }
  return entity;
}
