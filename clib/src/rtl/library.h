// The functions of a Verilated core's shared library.
#pragma once

#include <string>

#include "dlavm/rtl_model.h"

namespace dlavm::rtl {

class Library {
  public:
    explicit Library(const std::string& path);  // throws Misuse
    ~Library();
    Library(const Library&) = delete;
    Library& operator=(const Library&) = delete;

    decltype(&dlavm_rtl_open) open;
    decltype(&dlavm_rtl_close) close;
    decltype(&dlavm_rtl_set_memory) set_memory;
    decltype(&dlavm_rtl_set_timing) set_timing;
    decltype(&dlavm_rtl_read) read;
    decltype(&dlavm_rtl_write) write;
    decltype(&dlavm_rtl_run) run;

  private:
    template <class Function>
    void find(const char* name, Function& function) const;

    std::string path_;
    void* handle_;
};

}  // namespace dlavm::rtl
