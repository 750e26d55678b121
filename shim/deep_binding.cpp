#include "shim/deep_binding.h"

#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include "shim/real.h"

namespace ustack::shim::deep_binding {

namespace {

#if defined(__x86_64__)
constexpr uint32_t kJumpSlot = R_X86_64_JUMP_SLOT, kGlobal = R_X86_64_GLOB_DAT, kAbsolute = R_X86_64_64;
#elif defined(__aarch64__)
constexpr uint32_t kJumpSlot = R_AARCH64_JUMP_SLOT, kGlobal = R_AARCH64_GLOB_DAT, kAbsolute = R_AARCH64_ABS64;
#endif

/// A loaded library, as dl_iterate_phdr(3) shows it.
struct Object {
  uintptr_t base = 0;
  std::span<const ElfW(Phdr)> headers{};
};

/// Libraries in the order in which they were loaded, from the one on that is `first`.
struct Loaded {
  static constexpr size_t kMost = 256;
  size_t first = 0, count = 0;
  std::array<Object, kMost> objects{};

  static int add(dl_phdr_info* info, size_t, void* data) {
    auto* self = static_cast<Loaded*>(data);
    const size_t at = self->count++;
    if (at >= self->first && at - self->first < kMost)
      self->objects[at - self->first] = {info->dlpi_addr, {info->dlpi_phdr, info->dlpi_phnum}};
    return 0;
  }
  std::span<const Object> all() const {
    return std::span(objects).first(std::min(count - std::min(count, first), kMost));
  }
};

/// This library.
struct Self {
  void* handle = nullptr;
  const void* base = nullptr;

  Self() {
    Dl_info info;
    if (dladdr(reinterpret_cast<void*>(&open), &info) == 0) return;
    base = info.dli_fbase;
    handle = real::dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
  }
  ~Self() {
    if (handle != nullptr) dlclose(handle);
  }
  Self(const Self&) = delete;
  Self& operator=(const Self&) = delete;

  /// nullptr: `name` has none.
  void* hook(const char* name) const {
    void* found = dlsym(handle, name);
    Dl_info info;
    return found != nullptr && dladdr(found, &info) != 0 && info.dli_fbase == base ? found : nullptr;
  }
};

/// What of a library says how it is bound (elf(5), DT_...).
class Bindings {
 public:
  explicit Bindings(const Object& object) : object_(object) {
    for (const ElfW(Phdr) & header : object.headers) {
      if (header.p_type == PT_DYNAMIC)
        dynamic_ = reinterpret_cast<const ElfW(Dyn)*>(object.base + header.p_vaddr);
      if (header.p_type == PT_GNU_RELRO) relro_ = {object.base + header.p_vaddr, header.p_memsz};
    }
  }

  void bind(const Self& self) {
    if (dynamic_ == nullptr) return;
    const auto* symbols = static_cast<const ElfW(Sym)*>(pointer(DT_SYMTAB));
    const auto* names = static_cast<const char*>(pointer(DT_STRTAB));
    if (symbols == nullptr || names == nullptr) return;
    for (auto [table, bytes] : {std::pair{DT_RELA, DT_RELASZ}, {DT_JMPREL, DT_PLTRELSZ}}) {
      const auto* first = static_cast<const ElfW(Rela)*>(pointer(table));
      if (first == nullptr) continue;
      for (const ElfW(Rela) & entry : std::span(first, value(bytes) / sizeof(ElfW(Rela)))) {
        const auto type = static_cast<uint32_t>(ELF64_R_TYPE(entry.r_info));
        if (type != kJumpSlot && type != kGlobal && (type != kAbsolute || entry.r_addend != 0)) continue;
        const ElfW(Sym)& symbol = symbols[ELF64_R_SYM(entry.r_info)];
        if (symbol.st_shndx == SHN_UNDEF && symbol.st_name != 0)
          bind(reinterpret_cast<void**>(object_.base + entry.r_offset), names + symbol.st_name, self);
      }
    }
  }

 private:
  struct Range {
    uintptr_t begin = 0;
    size_t bytes = 0;
    bool holds(const void* at) const { return reinterpret_cast<uintptr_t>(at) - begin < bytes; }
  };

  /// What is not libc's is bound to something else on purpose; what is the library's own code waits there to
  /// be bound when it is called first.
  void bind(void** slot, const char* name, const Self& self) const {
    void* const bound = __atomic_load_n(slot, __ATOMIC_RELAXED);
    void* const hook = self.hook(name);
    if (hook == nullptr || bound == hook || (!is_own_code(bound) && bound != dlsym(RTLD_NEXT, name))) return;
    const auto page_bytes = static_cast<uintptr_t>(getpagesize());
    auto* page = reinterpret_cast<void*>(reinterpret_cast<uintptr_t>(slot) & ~(page_bytes - 1));
    const bool read_only = relro_.holds(slot);
    if (read_only && mprotect(page, page_bytes, PROT_READ | PROT_WRITE) != 0) return;
    __atomic_store_n(slot, hook, __ATOMIC_RELAXED);
    if (read_only) mprotect(page, page_bytes, PROT_READ);
  }

  bool is_own_code(const void* at) const {
    for (const ElfW(Phdr) & header : object_.headers)
      if (header.p_type == PT_LOAD && (header.p_flags & PF_X) != 0 &&
          Range{object_.base + header.p_vaddr, header.p_memsz}.holds(at))
        return true;
    return false;
  }

  ElfW(Xword) value(ElfW(Sxword) tag) const {
    for (const ElfW(Dyn)* entry = dynamic_; entry->d_tag != DT_NULL; ++entry)
      if (entry->d_tag == tag) return entry->d_un.d_val;
    return 0;
  }
  /// The dynamic linker has made most of them addresses.
  const void* pointer(ElfW(Sxword) tag) const {
    const ElfW(Xword) at = value(tag);
    return at == 0 ? nullptr : reinterpret_cast<const void*>(at < object_.base ? object_.base + at : at);
  }

  const Object& object_;
  const ElfW(Dyn) * dynamic_ = nullptr;
  Range relro_{};
};

}  // namespace

void* open(const char* file, int flags) {
  Loaded loaded;
  dl_iterate_phdr(Loaded::add, &loaded);
  loaded.first = loaded.count;
  loaded.count = 0;
  void* handle = real::dlopen(file, flags);
  const int error = errno;
  if (handle != nullptr) {
    // Symbols are looked up outside of it: it holds a lock of the dynamic linker.
    dl_iterate_phdr(Loaded::add, &loaded);
    const Self self;
    if (self.handle != nullptr)
      for (const Object& object : loaded.all()) Bindings(object).bind(self);
  }
  errno = error;
  return handle;
}

}  // namespace ustack::shim::deep_binding
