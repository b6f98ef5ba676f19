/** The volume back ends of `enabled_backends`: what an agent needs to find their volumes. */
import { backendOptions } from './backend-options.ts';
import type { ValuesOf } from './option.ts';
import type { Settings } from './settings.ts';

export type BackendConfig = {
  /** Name of the section. */
  readonly name: string;
  readonly driverClass: string;
  /** The volume service's host for it, without the pool: `<backend_host or host>@<section>`. */
  readonly host: string;
  readonly storage:
    | {
        readonly kind: 'rbd';
        readonly clusterName: string;
        readonly pool: string;
        readonly user: string | undefined;
        /** Empty: librbd's own default. */
        readonly cephConf: string;
        /** How long the monitors may take; undefined: as long as the agent finds right. */
        readonly connectTimeoutS: number | undefined;
      }
    | {
        readonly kind: 'lvm';
        readonly volumeGroup: string;
        readonly type: 'default' | 'thin' | 'auto';
        /** Its directory is LVM's, if it is there. */
        readonly confFile: string;
      }
    | { readonly kind: 'nfs'; readonly mountPointBase: string; readonly sharesConfig: string }
    /** No agent backend reads it. */
    | { readonly kind: 'other' };
};

/** Reads the sections; a missing one is an error where they are `needed`, else a warning. */
export function readBackends(
  settings: Settings,
  names: readonly string[],
  host: string,
  { needed }: { readonly needed: boolean },
): readonly BackendConfig[] {
  return names.map((name) => {
    if (!settings.raw.hasSection(name)) {
      const reason = `there is no section [${name}]`;
      if (needed) settings.reject('DEFAULT', 'enabled_backends', reason);
      else settings.warnings.push(`[DEFAULT] enabled_backends: ${reason}`);
    }
    const options = settings.read(name, backendOptions, 'backend_defaults');
    return {
      name,
      driverClass: options.volume_driver,
      host: `${options.backend_host ?? host}@${name}`,
      storage: storageOf(options),
    };
  });
}

function storageOf(options: ValuesOf<typeof backendOptions>): BackendConfig['storage'] {
  const module = options.volume_driver.toLowerCase();
  if (module.includes('.rbd.')) {
    return {
      kind: 'rbd',
      clusterName: options.rbd_cluster_name,
      pool: options.rbd_pool,
      user: options.rbd_user,
      cephConf: options.rbd_ceph_conf,
      connectTimeoutS: options.rados_connect_timeout > 0 ? options.rados_connect_timeout : undefined,
    };
  }
  if (module.includes('.lvm.')) {
    const type = options.lvm_type;
    return {
      kind: 'lvm',
      volumeGroup: options.volume_group,
      type: type === 'thin' || type === 'default' ? type : 'auto',
      confFile: options.lvm_conf_file,
    };
  }
  if (module.includes('.nfs.')) {
    return {
      kind: 'nfs',
      mountPointBase: options.nfs_mount_point_base,
      sharesConfig: options.nfs_shares_config,
    };
  }
  return { kind: 'other' };
}
