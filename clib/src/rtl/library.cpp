#include "rtl/library.h"

#include <dlfcn.h>

#include "abi/misuse.h"

namespace dlavm::rtl {

using abi::Misuse;

namespace {

std::string last_problem() {
    const char* text = dlerror();
    return text != nullptr ? text : "unknown";
}

}  // namespace

Library::Library(const std::string& path)
    : path_(path), handle_(dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL)) {
    if (handle_ == nullptr) throw Misuse{DLAVM_NOT_FOUND, "open: rtl: " + last_problem()};
    try {
        decltype(&dlavm_rtl_version) version = nullptr;
        find("dlavm_rtl_version", version);
        if (version() != DLAVM_RTL_VERSION) {
            throw Misuse{DLAVM_BAD_ARGUMENT, "open: rtl: " + path + ": expected version " +
                                                 std::to_string(DLAVM_RTL_VERSION) + ", got " +
                                                 std::to_string(version())};
        }
        find("dlavm_rtl_open", open);
        find("dlavm_rtl_close", close);
        find("dlavm_rtl_set_memory", set_memory);
        find("dlavm_rtl_set_timing", set_timing);
        find("dlavm_rtl_read", read);
        find("dlavm_rtl_write", write);
        find("dlavm_rtl_run", run);
    } catch (...) {
        dlclose(handle_);
        throw;
    }
}

Library::~Library() { dlclose(handle_); }

template <class Function>
void Library::find(const char* name, Function& function) const {
    function = reinterpret_cast<Function>(dlsym(handle_, name));
    if (function == nullptr)
        throw Misuse{DLAVM_BAD_ARGUMENT, "open: rtl: " + path_ + ": no Verilated core: it lacks " + name};
}

}  // namespace dlavm::rtl
