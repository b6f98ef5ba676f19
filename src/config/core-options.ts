/**
 * Options of [DEFAULT] that concern the service as a whole: Cinder's names, types and defaults (cinder/common/config.py,
 * cinder/service.py, cinder/backup/{manager,api}.py, cinder/db/api.py, cinder/message/api.py, cinder/quota.py, oslo_log/_options.py), Zed to 2026.1.
 */
import { hostname } from 'node:os';
import { flag, integer, list, text } from './option.ts';

export const coreOptions = {
  state_path: text({ default: '/var/lib/cinder' }),
  host: text({ default: hostname() }),
  storage_availability_zone: text({ default: 'nova' }),
  enabled_backends: list({ default: [] }),
  report_interval: integer({ default: 10 }),
  service_down_time: integer({ default: 60 }),
  graceful_shutdown_timeout: integer({ default: 60, min: 0 }),
  enable_new_services: flag({ default: true }),
  backup_driver: text({ default: 'cinder.backup.drivers.swift.SwiftBackupDriver' }),
  backup_driver_init_check_interval: integer({ default: 60, min: 5 }),
  backup_driver_stats_polling_interval: integer({
    default: 60,
    min: 10,
    aliases: [{ name: 'backup_driver_status_check_interval' }],
  }),
  backup_service_inithost_offload: flag({ default: true }),
  backup_max_operations: integer({ default: 15, min: 0 }),
  backup_metadata_version: integer({ default: 2 }),
  backup_object_number_per_notification: integer({ default: 10 }),
  backup_timer_interval: integer({ default: 120 }),
  backup_name_template: text({ default: 'backup-%s' }),
  volume_name_template: text({ default: 'volume-%s' }),
  snapshot_name_template: text({ default: 'snapshot-%s' }),
  message_ttl: integer({ default: 2_592_000 }),
  reservation_expire: integer({ default: 86_400 }),
  until_refresh: integer({ default: 0 }),
  max_age: integer({ default: 0 }),
  debug: flag({ default: false }),
  default_log_levels: list({ default: [] }),
  log_file: text({ aliases: [{ name: 'logfile' }] }),
  log_dir: text({ aliases: [{ name: 'logdir' }] }),
  use_json: flag({ default: false }),
  use_syslog: flag({ default: false }),
  use_stderr: flag({ default: false }),
};
