/* A fake libnvidia-ml.so.1 for tests and benches: the calls that pynvml makes, answered from a file.
 *
 * The environment variable FAKE_NVML names a file that holds `struct control`; it is mapped shared, so that a test which
 * rewrites a field (tests/fake_nvml.py) changes what the next call answers, in whatever process that call is made.
 * Shapes are those of NVIDIA's public nvml.h as nvidia-ml-py 13.615.71 declares them. Nothing here talks to a driver.
 *
 *   cc -shared -fPIC -O2 -Wl,-soname,libnvidia-ml.so.1 -o libnvidia-ml.so.1 libnvidia_ml.c
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { SUCCESS, UNINITIALIZED, INVALID_ARGUMENT, NOT_SUPPORTED, NO_PERMISSION, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7,
       DRIVER_NOT_LOADED = 9, GPU_IS_LOST = 15, LIB_RM_VERSION_MISMATCH = 18, UNKNOWN = 999 };

enum { MAX_DEVICES = 16, MAX_INSTANCES = 8, MAX_PROCESSES = 16, MAX_UNITS = 16 };

/* One code per call; tests/fake_nvml.py has the same list. */
enum call { INIT, COUNT, HANDLE, UUID, NAME, PCI, FIELDS, ENERGY, POWER, LIMIT, REASONS, MIG, C2C, PROCESSES,
            UTILISATION, PERSISTENCE, INSTANCE, GPM_SUPPORT, GPM_SAMPLE, GPM_METRICS, CALLS };
/* One code per (field, scope) that is known. */
enum field { F_ENERGY, F_AVERAGE, F_INSTANT, F_LIMIT, F_MAX_LIMIT, F_MODULE_ENERGY, F_MODULE_AVERAGE, F_MODULE_LIMIT,
             F_MEMORY_AVERAGE, FIELD_COUNT };

struct process { uint32_t pid, unused; uint64_t memory; };
struct sample { uint32_t pid, sm; uint64_t at; };

struct device {
  char uuid[80]; /* first, so that a handle of a device and one of a MIG instance can both be read as their UUID */
  char name[96], pci[32];
  uint32_t removed, hang, delay_ms, crash;
  int32_t code[CALLS], field_code[FIELD_COUNT];
  uint64_t energy_mj;
  double watts, since; /* watts > 0: energy grows by itself from `since`, a CLOCK_BOOTTIME in seconds */
  uint64_t field_value[FIELD_COUNT]; /* mW; F_ENERGY is not used */
  uint32_t mig, instances;
  char instance[MAX_INSTANCES][80];
  uint64_t reasons;
  uint32_t c2c, persistence, processes, samples;
  struct process process[MAX_PROCESSES];
  struct sample sample[MAX_PROCESSES];
  uint32_t gpm, gpu_instance[MAX_INSTANCES], slices[MAX_INSTANCES]; /* of each MIG instance: its GPU instance, its size */
  int32_t unit_code[MAX_UNITS]; /* what a metric of this GPU instance returns */
  double active[MAX_UNITS];     /* how active a GPU instance is, in percent */
};

struct control {
  uint64_t size; /* of this struct: whoever wrote another one is refused */
  uint32_t devices, order[MAX_DEVICES], generation;
  int32_t init_code;
  uint32_t init_hang;
  char driver[80];
  uint64_t calls[CALLS];
  int64_t gpm_samples; /* allocated and not freed, by all processes together */
  struct device device[MAX_DEVICES];
};

static volatile struct control *control;
static uint32_t generation;
static int initialised;

static void nap(void) { usleep(2000); }

static volatile struct control *mapped(void) {
  const char *path = getenv("FAKE_NVML");
  if (control || !path) return control;
  int fd = open(path, O_RDWR | O_CLOEXEC);
  struct stat facts;
  if (fd < 0) return NULL;
  if (fstat(fd, &facts) == 0 && facts.st_size >= (off_t)sizeof(struct control)) {
    void *at = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at != MAP_FAILED && ((struct control *)at)->size == sizeof(struct control)) control = at;
  }
  close(fd);
  return control;
}

static void count(enum call call) { __atomic_fetch_add(&control->calls[call], 1, __ATOMIC_RELAXED); }

/* What every call of a device goes through: delay, hang, crash, loss, and the code a test has set. */
static int enter(volatile struct device *device, enum call call) {
  if (!initialised || generation != control->generation) return UNINITIALIZED;
  count(call);
  if (!device) return INVALID_ARGUMENT;
  if (device->crash) raise(SIGSEGV);
  if (device->delay_ms) usleep(device->delay_ms * 1000);
  while (device->hang) nap();
  if (device->removed) return GPU_IS_LOST;
  return device->code[call];
}
#define ENTER(call) do { int rc = enter(handle, call); if (rc) return rc; } while (0)

static double boot_seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_BOOTTIME, &now);
  return now.tv_sec + now.tv_nsec / 1e9;
}

static uint64_t energy_mj(volatile struct device *device) {
  if (device->watts <= 0) return device->energy_mj;
  return device->energy_mj + (uint64_t)(device->watts * 1e3 * (boot_seconds() - device->since));
}

static uint64_t field_value(volatile struct device *device, enum field field) {
  if (field == F_ENERGY) return energy_mj(device);
  if (device->watts > 0 && (field == F_AVERAGE || field == F_INSTANT)) return (uint64_t)(device->watts * 1e3);
  return device->field_value[field];
}

static int copy(const volatile char *from, char *to, unsigned length) {
  snprintf(to, length, "%s", (const char *)from);
  return SUCCESS;
}

/* Library */

int nvmlInitWithFlags(unsigned flags) {
  (void)flags;
  if (!mapped()) return DRIVER_NOT_LOADED;
  count(INIT);
  while (control->init_hang) nap();
  if (control->init_code) return control->init_code;
  generation = control->generation;
  initialised = 1;
  return SUCCESS;
}
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlInit(void) { return nvmlInitWithFlags(0); }

int nvmlShutdown(void) {
  if (!initialised) return UNINITIALIZED;
  initialised = 0;
  return SUCCESS;
}

const char *nvmlErrorString(int code) {
  switch (code) {
    case SUCCESS: return "Success";
    case UNINITIALIZED: return "Uninitialized";
    case INVALID_ARGUMENT: return "Invalid Argument";
    case NOT_SUPPORTED: return "Not Supported";
    case NO_PERMISSION: return "Insufficient Permissions";
    case NOT_FOUND: return "Not Found";
    case DRIVER_NOT_LOADED: return "Driver Not Loaded";
    case GPU_IS_LOST: return "GPU is lost";
    case LIB_RM_VERSION_MISMATCH: return "RM has detected an NVML/RM version mismatch.";
    default: return "Unknown Error";
  }
}

int nvmlSystemGetDriverVersion(char *to, unsigned length) {
  return initialised ? copy(control->driver, to, length) : UNINITIALIZED;
}
int nvmlSystemGetNVMLVersion(char *to, unsigned length) { return nvmlSystemGetDriverVersion(to, length); }
int nvmlSystemGetCudaDriverVersion_v2(int *version) { *version = 13010; return SUCCESS; }

/* Handles: index -> slot by control->order, removed devices left out */

int nvmlDeviceGetCount_v2(unsigned *devices) {
  if (!initialised || generation != control->generation) return UNINITIALIZED;
  count(COUNT);
  *devices = 0;
  for (unsigned slot = 0; slot < control->devices; slot++) *devices += !control->device[slot].removed;
  return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, volatile struct device **handle) {
  if (!initialised) return UNINITIALIZED;
  for (unsigned i = 0; i < control->devices; i++) {
    volatile struct device *device = &control->device[control->order[i]];
    if (device->removed || index--) continue;
    *handle = device;
    return enter(device, HANDLE);
  }
  return INVALID_ARGUMENT;
}

static int find(const char *wanted, int by_pci, volatile struct device **handle) {
  if (!initialised) return UNINITIALIZED;
  for (unsigned slot = 0; slot < control->devices; slot++) {
    volatile struct device *device = &control->device[slot];
    if (device->removed || strcmp((const char *)(by_pci ? device->pci : device->uuid), wanted)) continue;
    *handle = device;
    return enter(device, HANDLE);
  }
  return NOT_FOUND;
}
int nvmlDeviceGetHandleByUUID(const char *uuid, volatile struct device **handle) { return find(uuid, 0, handle); }
int nvmlDeviceGetHandleByPciBusId_v2(const char *pci, volatile struct device **handle) { return find(pci, 1, handle); }

/* Facts */

int nvmlDeviceGetUUID(volatile struct device *handle, char *to, unsigned length) {
  if (!handle) return INVALID_ARGUMENT;
  if (strncmp((const char *)handle->uuid, "MIG-", 4)) ENTER(UUID);
  return copy(handle->uuid, to, length);
}
int nvmlDeviceGetName(volatile struct device *handle, char *to, unsigned length) {
  ENTER(NAME);
  return copy(handle->name, to, length);
}
int nvmlDeviceGetIndex(volatile struct device *handle, unsigned *index) {
  ENTER(HANDLE);
  for (unsigned i = 0; i < control->devices; i++)
    if (&control->device[control->order[i]] == handle) *index = i;
  return SUCCESS;
}
struct pci_info { char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; };
int nvmlDeviceGetPciInfo_v3(volatile struct device *handle, struct pci_info *info) {
  ENTER(PCI);
  memset(info, 0, sizeof *info);
  copy(handle->pci, info->bus_id, sizeof info->bus_id);
  return SUCCESS;
}
int nvmlDeviceGetPersistenceMode(volatile struct device *handle, unsigned *mode) {
  ENTER(PERSISTENCE);
  *mode = handle->persistence;
  return SUCCESS;
}
int nvmlDeviceGetMigMode(volatile struct device *handle, unsigned *now, unsigned *later) {
  ENTER(MIG);
  *now = *later = handle->mig;
  return SUCCESS;
}
int nvmlDeviceGetMaxMigDeviceCount(volatile struct device *handle, unsigned *instances) {
  ENTER(MIG);
  *instances = MAX_INSTANCES - 1; /* as an H100: seven places, some of them empty */
  return SUCCESS;
}
int nvmlDeviceGetMigDeviceHandleByIndex(volatile struct device *handle, unsigned index, void **instance) {
  ENTER(MIG);
  if (index >= handle->instances) return NOT_FOUND;
  *instance = (void *)handle->instance[index];
  return SUCCESS;
}
/* The board that a MIG instance's handle is of, and its place there. */
static volatile struct device *board_of(const volatile void *instance, unsigned *place) {
  for (unsigned slot = 0; slot < MAX_DEVICES; slot++)
    for (*place = 0; *place < MAX_INSTANCES; ++*place)
      if ((const volatile void *)control->device[slot].instance[*place] == instance) return &control->device[slot];
  return NULL;
}
int nvmlDeviceGetGpuInstanceId(volatile void *instance, unsigned *id) {
  unsigned place;
  volatile struct device *handle = board_of(instance, &place);
  ENTER(INSTANCE);
  *id = handle->gpu_instance[place];
  return SUCCESS;
}
struct attributes { unsigned processors, copiers, decoders, encoders, jpeg, ofa, gpu_slices, compute_slices; uint64_t megabytes; };
int nvmlDeviceGetAttributes_v2(volatile void *instance, struct attributes *to) {
  unsigned place;
  volatile struct device *handle = board_of(instance, &place);
  ENTER(INSTANCE);
  *to = (struct attributes){.gpu_slices = handle->slices[place], .compute_slices = 1};
  return SUCCESS;
}
int nvmlDeviceGetC2cModeInfoV(volatile struct device *handle, unsigned *enabled) {
  ENTER(C2C);
  *enabled = handle->c2c;
  return SUCCESS;
}

/* Energy and power */

struct field_answer {
  uint32_t id, scope;
  int64_t at, latency;
  unsigned type;
  int code;
  union { double d; unsigned ui; unsigned long ul; uint64_t ull; } value;
};

static int field_of(uint32_t id, uint32_t scope) {
  if (scope == 0) {
    switch (id) {
      case 83: return F_ENERGY;
      case 185: return F_AVERAGE;
      case 186: return F_INSTANT;
      case 190: return F_LIMIT;
      case 188: return F_MAX_LIMIT;
    }
  }
  if (scope == 1) {
    switch (id) {
      case 83: return F_MODULE_ENERGY;
      case 185: return F_MODULE_AVERAGE;
      case 190: return F_MODULE_LIMIT;
    }
  }
  return scope == 2 && id == 185 ? F_MEMORY_AVERAGE : FIELD_COUNT;
}

int nvmlDeviceGetFieldValues(volatile struct device *handle, int n, struct field_answer *answers) {
  ENTER(FIELDS);
  for (int i = 0; i < n; i++) {
    struct field_answer *answer = &answers[i];
    int field = field_of(answer->id, answer->scope);
    answer->code = field == FIELD_COUNT ? NOT_SUPPORTED : handle->field_code[field];
    if (answer->code) continue;
    int is_energy = field == F_ENERGY || field == F_MODULE_ENERGY;
    answer->type = is_energy ? 3 : 1; /* unsigned long long : unsigned int */
    if (is_energy) answer->value.ull = field_value(handle, field);
    else answer->value.ui = (unsigned)field_value(handle, field);
  }
  return SUCCESS;
}
int nvmlDeviceGetTotalEnergyConsumption(volatile struct device *handle, uint64_t *mj) {
  ENTER(ENERGY);
  *mj = energy_mj(handle);
  return SUCCESS;
}
int nvmlDeviceGetPowerUsage(volatile struct device *handle, unsigned *mw) {
  ENTER(POWER);
  *mw = (unsigned)field_value(handle, F_AVERAGE);
  return SUCCESS;
}
int nvmlDeviceGetEnforcedPowerLimit(volatile struct device *handle, unsigned *mw) {
  ENTER(LIMIT);
  *mw = (unsigned)field_value(handle, F_LIMIT);
  return SUCCESS;
}
int nvmlDeviceGetPowerManagementLimit(volatile struct device *handle, unsigned *mw) {
  return nvmlDeviceGetEnforcedPowerLimit(handle, mw);
}
int nvmlDeviceGetPowerManagementLimitConstraints(volatile struct device *handle, unsigned *min, unsigned *max) {
  *min = 100000;
  return nvmlDeviceGetEnforcedPowerLimit(handle, max);
}
int nvmlDeviceGetCurrentClocksEventReasons(volatile struct device *handle, uint64_t *reasons) {
  ENTER(REASONS);
  *reasons = handle->reasons;
  return SUCCESS;
}
int nvmlDeviceGetCurrentClocksThrottleReasons(volatile struct device *handle, uint64_t *reasons) {
  return nvmlDeviceGetCurrentClocksEventReasons(handle, reasons);
}

/* Processes */

struct process_answer { unsigned pid; uint64_t memory; unsigned gpu_instance, compute_instance; };
int nvmlDeviceGetComputeRunningProcesses_v3(volatile struct device *handle, unsigned *n, struct process_answer *to) {
  ENTER(PROCESSES);
  unsigned room = *n, running = handle->processes;
  *n = running;
  if (running > room || (running && !to)) return INSUFFICIENT_SIZE;
  for (unsigned i = 0; i < running; i++)
    to[i] = (struct process_answer){handle->process[i].pid, handle->process[i].memory, ~0u, ~0u};
  return SUCCESS;
}
int nvmlDeviceGetGraphicsRunningProcesses_v3(volatile struct device *handle, unsigned *n, struct process_answer *to) {
  (void)to;
  ENTER(PROCESSES);
  *n = 0;
  return SUCCESS;
}

struct sample_answer { unsigned pid; uint64_t at; unsigned sm, memory, encoder, decoder; };
int nvmlDeviceGetProcessUtilization(volatile struct device *handle, struct sample_answer *to, unsigned *n, uint64_t since) {
  ENTER(UTILISATION);
  if (handle->mig) return NOT_SUPPORTED;
  unsigned room = *n, found = 0;
  for (unsigned i = 0; i < handle->samples; i++) {
    if (handle->sample[i].at <= since) continue;
    if (to && found < room) to[found] = (struct sample_answer){handle->sample[i].pid, handle->sample[i].at, handle->sample[i].sm, 0, 0, 0};
    found++;
  }
  *n = found;
  if (!found) return to ? NOT_FOUND : SUCCESS; /* as drivers do: an idle board succeeds with nothing to tell */
  return found > room || !to ? INSUFFICIENT_SIZE : SUCCESS;
}

/* GPM: what lies between two samples of a GPU instance */

struct gpm_sample { volatile struct device *device; unsigned gpu_instance; uint64_t serial; };
struct gpm_support { unsigned version, supported; };
struct gpm_metric { unsigned id; int code; double value; const char *words[3]; };
struct gpm_metrics { unsigned version, count; struct gpm_sample *first, *second; struct gpm_metric metric[]; };

int nvmlGpmQueryDeviceSupport(volatile struct device *handle, struct gpm_support *to) {
  ENTER(GPM_SUPPORT);
  if (to->version != 1) return INVALID_ARGUMENT;
  to->supported = handle->gpm;
  return SUCCESS;
}
int nvmlGpmSampleAlloc(struct gpm_sample **to) {
  if (!initialised) return UNINITIALIZED;
  __atomic_fetch_add(&control->gpm_samples, 1, __ATOMIC_RELAXED);
  *to = calloc(1, sizeof **to);
  return SUCCESS;
}
int nvmlGpmSampleFree(struct gpm_sample *sample) {
  if (!sample) return INVALID_ARGUMENT;
  __atomic_fetch_sub(&control->gpm_samples, 1, __ATOMIC_RELAXED);
  free(sample);
  return SUCCESS;
}
int nvmlGpmMigSampleGet(volatile struct device *handle, unsigned gpu_instance, struct gpm_sample *to) {
  static uint64_t serial;
  ENTER(GPM_SAMPLE);
  for (unsigned place = 0; place < handle->instances; place++) {
    if (handle->gpu_instance[place] != gpu_instance) continue;
    *to = (struct gpm_sample){handle, gpu_instance, ++serial};
    return SUCCESS;
  }
  return INVALID_ARGUMENT;
}
int nvmlGpmMetricsGet(struct gpm_metrics *metrics) {
  volatile struct device *handle = metrics->first->device;
  ENTER(GPM_METRICS);
  if (metrics->version != 1 || metrics->second->device != handle || metrics->second->serial <= metrics->first->serial ||
      metrics->second->gpu_instance != metrics->first->gpu_instance)
    return INVALID_ARGUMENT;
  for (unsigned i = 0; i < metrics->count; i++) {
    struct gpm_metric *metric = &metrics->metric[i];
    metric->code = metric->id == 1 ? handle->unit_code[metrics->first->gpu_instance] : NOT_SUPPORTED;
    if (!metric->code) metric->value = handle->active[metrics->first->gpu_instance];
  }
  return SUCCESS;
}

/* What other meters (CodeCarbon, Zeus) ask besides; fixed answers */

struct memory { uint64_t total, free, used; };
int nvmlDeviceGetMemoryInfo(volatile struct device *handle, struct memory *to) {
  ENTER(NAME);
  *to = (struct memory){80ull << 30, 40ull << 30, 40ull << 30};
  return SUCCESS;
}
int nvmlDeviceGetTemperature(volatile struct device *handle, int sensor, unsigned *celsius) {
  (void)sensor;
  ENTER(NAME);
  *celsius = 40;
  return SUCCESS;
}
int nvmlDeviceGetUtilizationRates(volatile struct device *handle, unsigned *rates) {
  ENTER(NAME);
  rates[0] = 50;
  rates[1] = 20;
  return SUCCESS;
}
int nvmlDeviceGetComputeMode(volatile struct device *handle, unsigned *mode) {
  ENTER(NAME);
  *mode = 0;
  return SUCCESS;
}
int nvmlDeviceGetArchitecture(volatile struct device *handle, unsigned *architecture) {
  ENTER(NAME);
  *architecture = 9; /* Hopper */
  return SUCCESS;
}
