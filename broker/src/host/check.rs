//! Checking declarations without starting anything: all that is wrong with them at once.

use super::{
    instance::Instance,
    needs::{Needs, missing},
    plugins::{Plugins, check_names},
};
use crate::{config_file::WrongKeys, declaration::PluginDeclaration, error::BrokerError};

impl Plugins {
    /// What is wrong with these declarations.
    pub(crate) fn check(&self, declarations: Vec<PluginDeclaration>) -> Vec<BrokerError> {
        let mut errors: Vec<_> = check_names(&declarations).err().into_iter().collect();
        self.prepare_libraries(&declarations.iter().collect::<Vec<_>>());
        let mut needs = Vec::new();
        for declaration in declarations {
            errors.extend(self.check_one(declaration, &mut needs));
        }
        self.libraries.forget_prepared();
        errors.extend(missing(&needs));
        errors
    }

    /// A plugin reports the first key that is wrong: that is left out, and it is asked again.
    fn check_one(&self, mut declaration: PluginDeclaration, needs: &mut Vec<Needs>) -> Vec<BrokerError> {
        let plugin = declaration.name.clone();
        let mut wrong = WrongKeys::default();
        let mut others = Vec::new();
        let needed = loop {
            let instance = Instance::candidate(declaration.clone(), self.core.clone());
            let configured = self.configure_one(&instance);
            let needed = instance.needs();
            instance.discard();
            match configured {
                Ok(()) => break needed,
                Err(BrokerError::Configure { error, .. }) => {
                    if !wrong.leave_out(error, &mut declaration.config) {
                        break needed;
                    }
                }
                Err(error) => {
                    others.push(error);
                    break needed;
                }
            }
        };
        needs.push(needed);
        let configure = |error| BrokerError::Configure { plugin: plugin.clone(), error };
        wrong.errors.into_iter().map(configure).chain(others).collect()
    }
}
