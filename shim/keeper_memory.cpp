#include "shim/keeper_memory.h"

#include <gnu/libc-version.h>
#include <link.h>
#include <pthread.h>
#include <sys/auxv.h>
#if __has_include(<sys/rseq.h>)
#include <sys/rseq.h>
#endif

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <ctime>

#include "io/capture.h"
#include "io/fork_mark.h"
#include "io/syscalls.h"
#include "shim/process_state.h"
#include "shim/scope.h"
#include "shim/shared_host.h"
#include "stack/base/sanitizers.h"

namespace ustack::shim::keeper {

namespace {

namespace sys = io::sys;

constexpr uintptr_t kPage = 4096;
/// The kernel keeps the lowest pages free (vm.mmap_min_addr); nothing of a program's is there.
constexpr uintptr_t kLowest = 0x10000;

struct Range {
  uintptr_t begin, end;
};

/// Sorted only at the end; more than there ever are.
struct Ranges {
  static constexpr size_t kMost = 64;
  Range ranges[kMost]{};
  size_t count = 0;

  void add(uintptr_t begin, uintptr_t end) {
    begin &= ~(kPage - 1);
    end = (end + kPage - 1) & ~(kPage - 1);
    if (count < kMost && begin < end) ranges[count++] = {begin, end};
  }
  void add(const void* at, size_t bytes) {
    auto begin = reinterpret_cast<uintptr_t>(at);
    add(begin, begin + bytes);
  }
};

constinit Ranges objects;
bool noted = false;
/// Some function that the keeper uses is neither libc's nor ours.
bool interposed = false;

uintptr_t address_of(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer); }
template <typename Result, typename... Arguments>
uintptr_t address_of(Result (*function)(Arguments...)) {
  return reinterpret_cast<uintptr_t>(function);
}

bool contains(const dl_phdr_info& object, uintptr_t address) {
  for (int i = 0; i < object.dlpi_phnum; ++i) {
    const auto& part = object.dlpi_phdr[i];
    uintptr_t begin = object.dlpi_addr + part.p_vaddr;
    if (part.p_type == PT_LOAD && address >= begin && address < begin + part.p_memsz) return true;
  }
  return false;
}

void keep(const dl_phdr_info& object) {
  for (int i = 0; i < object.dlpi_phnum; ++i) {
    const auto& part = object.dlpi_phdr[i];
    if (part.p_type == PT_LOAD)
      objects.add(object.dlpi_addr + part.p_vaddr, object.dlpi_addr + part.p_vaddr + part.p_memsz);
  }
}

int look_at_object(dl_phdr_info* object, size_t, void* found) {
  // What the keeper calls that is not inlined.
  const uintptr_t used[] = {address_of(&pthread_mutex_clocklock),
                            address_of(&pthread_mutex_trylock),
                            address_of(&pthread_mutex_unlock),
                            address_of(&pthread_mutex_consistent),
                            address_of(&clock_gettime),
                            address_of(static_cast<void* (*)(void*, const void*, size_t)>(&std::memcpy)),
                            address_of(static_cast<void* (*)(void*, int, size_t)>(&std::memset)),
                            address_of(static_cast<void* (*)(void*, const void*, size_t)>(&std::memmove))};
  bool ours = contains(*object, address_of(&noted));
  bool libc = contains(*object, address_of(gnu_get_libc_version()));
  bool linker = object->dlpi_addr != 0 && object->dlpi_addr == getauxval(AT_BASE);
  if (ours || libc || linker) keep(*object);
  if (ours || libc)
    for (uintptr_t function : used) *static_cast<size_t*>(found) += contains(*object, function) ? 1 : 0;
  constexpr size_t kUsed = sizeof used / sizeof used[0];
  interposed = *static_cast<size_t*>(found) < kUsed;
  return 0;
}

/// This thread's: what libc and the library have in TLS, and libc's descriptor of the thread behind it.
void add_thread(Ranges& needed) {
  constexpr uintptr_t kThreadDescriptor = 3 * kPage;
  auto thread = reinterpret_cast<uintptr_t>(pthread_self());
  uintptr_t first = std::min(address_of(&this_thread()), address_of(&errno));
  uintptr_t last = std::max(address_of(&this_thread()), address_of(&errno)) + sizeof(ThreadState);
  needed.add(std::min(first, thread), std::max(last, thread + kThreadDescriptor));
#ifdef RSEQ_SIG
  // The kernel writes there whenever it moves the thread to another CPU.
  needed.add(thread + static_cast<uintptr_t>(__rseq_offset),
             thread + static_cast<uintptr_t>(__rseq_offset) + 64);
#endif
}

/// With the data pages of the vdso, which lie below it.
void add_vdso(Ranges& needed, uintptr_t vdso) {
  constexpr uintptr_t kBelow = 16 * kPage, kAbove = 4 * kPage;
  if (vdso != 0) needed.add(vdso - kBelow, vdso + kAbove);
}

uintptr_t vdso_address = 0;

/// From `begin` to the end of what a process can have; the kernel refuses a range beyond it.
void unmap_to_the_end(uintptr_t begin) {
  for (int bits : {57, 52, 48, 47, 42, 39}) {
    uintptr_t end = (uintptr_t{1} << (bits - (bits == 57 ? 1 : 0))) - kPage;
    if (end > begin && !sys::failed(sys::munmap(reinterpret_cast<void*>(begin), end - begin))) return;
  }
}

}  // namespace

void note_objects() {
  if (noted) return;
  size_t found = 0;
  dl_iterate_phdr(look_at_object, &found);
  vdso_address = getauxval(AT_SYSINFO_EHDR);
  noted = true;
}

void unmap_program() {
  if (kAddressSanitizer || kThreadSanitizer || !noted || interposed) return;
  Ranges needed = objects;
  add_thread(needed);
  add_vdso(needed, vdso_address);
  io::SharedRegion* region = shared_host->region;
  needed.add(address_of(region), address_of(region->base()) + region->size());
  if (const void* mark = io::fork_mark_page()) needed.add(mark, 1);
  if (const io::Capture* capture = process_state().capture) needed.add(capture, sizeof *capture);

  if (needed.count == Ranges::kMost) return;
  std::sort(needed.ranges, needed.ranges + needed.count,
            [](const Range& a, const Range& b) { return a.begin < b.begin; });
  uintptr_t end = kLowest;
  for (size_t i = 0; i < needed.count; ++i) {
    const Range& range = needed.ranges[i];
    if (range.begin > end) sys::munmap(reinterpret_cast<void*>(end), range.begin - end);
    end = std::max(end, range.end);
  }
  unmap_to_the_end(end);
}

}  // namespace ustack::shim::keeper
